"""Verbs that take several agents: all are tried, each failure is told, the first one decides the exit code."""

from __future__ import annotations

from aos.errors import AosError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["each"]


def each(verb: str, names: Sequence[str], act: Callable[[str], None]) -> int:
    """Do `act` for every name; an AosError of one does not keep the others from it."""
    code = 0
    for name in dict.fromkeys(names):
        try:
            act(name)
        except AosError as error:
            from aos.cli.main import report

            failed = report(verb, error)
            code = code or failed
    return code
