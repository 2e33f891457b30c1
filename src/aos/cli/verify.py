"""`aos verify`: hash a package again, in the local store or in a layout on disk."""

from __future__ import annotations

from aos.cli._options import OUTPUT, Verb
from aos.cli._output import clean, colour, print_json, wants_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from aos.cli._options import Arguments

__all__ = ["VERB", "main"]

VERB = Verb("Check that a package, or a layout in a directory, is what its digest says", "TARGET", (OUTPUT,))


def main(args: Arguments) -> int:
    from aos.cli._transfer import exchange
    from aos.errors import DataLoss

    checks = []
    for check in exchange(args).verify(args["target"]):
        checks.append(check)
        if not wants_json(args):
            verdict = colour("ok ", "green") if check.problem is None else colour("bad", "red")
            print(f"{verdict}  {check.what:<8}  {check.subject}  {clean(check.detail)}")
    problems = [check for check in checks if check.problem is not None]
    if wants_json(args):
        print_json(
            {
                "target": args["target"],
                "whole": not problems,
                "signed": False,
                "checks": [
                    {
                        "what": check.what,
                        "subject": check.subject,
                        "detail": check.detail,
                        "code": check.problem.code if check.problem else None,
                    }
                    for check in checks
                ],
            }
        )
    elif not problems:
        print("unsigned: every byte is what the digest says; nobody vouches for the digest")
    if problems:
        raise DataLoss(
            f"{args['target']}: {len(problems)} of {len(checks)} checks failed",
            code="package-damaged",
            hint="pull or build it again",
        )
    return 0
