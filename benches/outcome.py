"""What a comparison is given, and what it answers with: claims beside figures."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benches.measure import percentile, ratio

if TYPE_CHECKING:
    from pathlib import Path

    from benches.measure import Crowd, Series
    from benches.ours import Installation
    from benches.peers import Buildah, Containerd, Podman, Runc

__all__ = ["MIB", "Claim", "Contenders", "Outcome"]

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Contenders:
    ours: Installation
    runc: Runc
    podman: Podman
    containerd: Containerd
    buildah: Buildah
    rootfs: Path
    home: Path


@dataclass(frozen=True, slots=True)
class Claim:
    """One row of the table: what was asked, what was measured."""

    what: str
    asked: str
    measured: str
    holds: bool


@dataclass(slots=True)
class Outcome:
    claims: list[Claim] = field(default_factory=list)
    series: list[Series] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)

    def at_most_ratio(self, what: str, ours: Series, theirs: Series, asked: float) -> None:
        measured = ratio(ours, theirs)
        peer = theirs.command.name
        self.claims.append(Claim(what, f"<= {asked} x {peer}", f"{measured}", measured.median <= asked))

    def at_most_beyond(self, what: str, ours: Series, theirs: Series, asked: float) -> None:
        """Milliseconds more than the peer, round by round."""
        beyond = [a - b for a, b in zip(ours.seconds, theirs.seconds, strict=True)]
        self.at_most_ms(f"{what}, beyond {theirs.command.name}", beyond, asked)

    def at_most_ms(self, what: str, values: list[float], asked: float) -> None:
        median = statistics.median(values) * 1000
        spread = f"[{percentile(values, 10) * 1000:.0f}-{percentile(values, 90) * 1000:.0f}]"
        self.claims.append(Claim(what, f"<= {asked:.0f} ms", f"{median:.1f} ms {spread}", median <= asked))

    def at_least_rate(self, what: str, ours: Crowd, theirs: Crowd, asked: float) -> None:
        """Of runs a second: so many times the peer's."""
        rounds = [a / b for a, b in zip(ours.rates, theirs.rates, strict=True)]
        median = statistics.median(ours.rates) / statistics.median(theirs.rates)
        spread = f"[{percentile(rounds, 10):.1f}-{percentile(rounds, 90):.1f}]"
        peer = f"{asked:g} x {theirs.series.command.name}"
        self.claims.append(Claim(what, f">= {peer}", f"{median:.1f} {spread}", median >= asked))

    def at_most_mib(self, what: str, measured: float, asked: float) -> None:
        self.claims.append(
            Claim(what, f"<= {asked:.0f} MiB", f"{measured / MIB:.1f} MiB", measured <= asked * MIB)
        )
