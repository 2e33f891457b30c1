"""Which backend runs a sandbox when nobody names one (`--runtime auto`): the lightest that is enough. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from aos.errors import FailedPrecondition, InvalidArgument
from aos.runtime.protocol import Isolation

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from aos.errors import AosError
    from aos.runtime.protocol import RuntimeInfo

__all__ = ["AUTO", "LADDER", "Candidate", "Choice", "Needs", "check_isolation", "choose", "why_not"]

AUTO = "auto"
LADDER: tuple[Isolation, ...] = get_args(Isolation)
"""From the weakest."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What a sandbox must have."""

    isolation: Isolation = "none"
    capabilities: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A backend, and whether it works on this host: it has either an info or an error."""

    name: str
    info: RuntimeInfo | None
    error: AosError | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    name: str
    why: str
    """One sentence for people."""


def check_isolation(text: str, where: str) -> Isolation:
    """InvalidArgument `isolation-unknown`; `where` says who wrote it."""
    for known in LADDER:
        if text == known:
            return known
    raise InvalidArgument(
        f"{where}: no isolation is called {text!r}",
        code="isolation-unknown",
        hint=f"from the weakest: {', '.join(LADDER)}",
    )


def why_not(candidate: Candidate, needs: Needs) -> str:
    """Why the candidate is not enough; empty when it is."""
    info = candidate.info
    if info is None:
        return candidate.error.message if candidate.error else "it does not answer"
    if LADDER.index(info.isolation) < LADDER.index(needs.isolation):
        return f"it isolates by {info.isolation}, and {needs.isolation} is asked for"
    missing = needs.capabilities - info.capabilities
    return f"it cannot {', '.join(sorted(missing))}" if missing else ""


def choose(candidates: Sequence[Candidate], needs: Needs) -> Choice:
    """The first that is enough, of those with the weakest isolation; FailedPrecondition `runtime-unfit` says why none is.

    `candidates` are in the order of choice between equals."""
    fit = [one for one in candidates if not why_not(one, needs)]
    if not fit:
        raise FailedPrecondition(
            f"no runtime on this host is enough: {_reasons(candidates, needs)}",
            code="runtime-unfit",
            hint="`aos runtimes` lists what each can do, and what is missing",
        )
    best = min(fit, key=lambda one: LADDER.index(one.info.isolation) if one.info else 0)
    passed = [one for one in candidates[: candidates.index(best)] if one not in fit]
    why = f"the lightest with {_words(needs)}"
    return Choice(best.name, f"{why} ({_reasons(passed, needs)})" if passed else why)


def _words(needs: Needs) -> str:
    asked = [needs.isolation if needs.isolation != "none" else "any isolation"]
    return " and ".join([*asked, *sorted(needs.capabilities)])


def _reasons(candidates: Collection[Candidate], needs: Needs) -> str:
    return "; ".join(f"{one.name}: {why_not(one, needs)}" for one in candidates)
