"""`aos doctor`: whether this host has what agents need, and what to do where it has not."""

from __future__ import annotations

import os

from aos.cli._options import OUTPUT, Verb
from aos.cli._output import clean, colour, print_json, wants_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from aos.cli._options import Arguments

__all__ = ["VERB", "main"]

VERB = Verb(
    "Check whether this host has what agents need; exits with 1 when something fails", options=(OUTPUT,)
)

_MARKS = {"ok": "green", "warn": "yellow", "fail": "red"}


def main(args: Arguments) -> int:
    from aos.cli._checks import examine
    from aos.config import load_config

    checks = list(examine(load_config(os.environ)))
    failed = any(check.status == "fail" for check in checks)
    if wants_json(args):
        fields = ("name", "status", "message", "hint")
        print_json(
            {
                "ok": not failed,
                "checks": [{name: getattr(check, name) for name in fields} for check in checks],
            }
        )
        return int(failed)
    wide = max(len(check.name) for check in checks)
    for check in checks:
        print(
            f"{colour(f'{check.status:4}', _MARKS[check.status])}  {check.name:{wide}}  {clean(check.message)}"
        )
        if check.hint:
            print(f"{'':{wide + 8}}{colour('hint:', 'cyan')} {clean(check.hint)}")
    return int(failed)
