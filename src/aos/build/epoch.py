"""The date of everything a build makes: what was asked for, else SOURCE_DATE_EPOCH of the environment, else 0.

Source: reproducible-builds.org, "SOURCE_DATE_EPOCH specification".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from aos.errors import FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["source_date_epoch"]

_END = 8**11
"""What a ustar header's date cannot be."""
_GIT_SECONDS = 30.0
_COMMITTER = re.compile(rb"^committer [^\n]*> (\d+) [+-]\d{4}$", re.MULTILINE)


def source_date_epoch(environ: Mapping[str, str], context: Path, asked: str = "") -> int:
    """Seconds since 1970. `asked`: such a number, or `git`: of the newest commit of the context's repository.

    Raise InvalidArgument (`source-date-epoch-invalid`), FailedPrecondition (`git-missing`, `commit-unknown`).
    """
    if asked == "git":
        return _newest_commit(environ, context)
    name, text = ("--source-date-epoch", asked) if asked else ("SOURCE_DATE_EPOCH", "")
    text = text or environ.get("SOURCE_DATE_EPOCH") or "0"
    if not text.isascii() or not text.isdigit() or len(text) > 11 or int(text) >= _END:
        raise InvalidArgument(
            f"{name} is {text!r:.40}, which is not a number of seconds since 1970",
            code="source-date-epoch-invalid",
            hint="a whole number; or --source-date-epoch git, for the date of the newest commit",
        )
    return int(text)


def _newest_commit(environ: Mapping[str, str], context: Path) -> int:
    """When HEAD was committed. Not the newest commit that touched the context: of a shallow clone that is another.

    `cat-file` reads one object and runs nothing that a repository's settings name."""
    kept = {
        name: value
        for name, value in environ.items()
        if not name.startswith("GIT_") or name.startswith("GIT_CONFIG")
    }
    import subprocess  # 5 ms, paid by those who ask for git's date

    try:
        done = subprocess.run(
            ["git", "-C", str(context), "cat-file", "commit", "HEAD"],
            env={**kept, "LC_ALL": "C.UTF-8"},
            capture_output=True,
            timeout=_GIT_SECONDS,
        )
    except FileNotFoundError as error:
        raise FailedPrecondition(
            "git is not installed, and --source-date-epoch git asks it for the newest commit",
            code="git-missing",
            hint="sudo apt-get install git",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise _unknown(context, f"git gave no answer within {_GIT_SECONDS:g} s") from error
    found = _COMMITTER.search(done.stdout.partition(b"\n\n")[0])
    if done.returncode != 0 or found is None or int(found[1]) >= _END:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise _unknown(context, said[0] if said else "its newest commit has no date")
    return int(found[1])


def _unknown(context: Path, why: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"the newest commit of {str(context)!r} is not known: {why}",
        code="commit-unknown",
        hint="outside of a repository give the seconds: --source-date-epoch 0, or a release's date",
    )
