"""What a comparison is given, and what it answers with: claims beside figures."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benches.measure import Series, percentile, ratio

if TYPE_CHECKING:
    from pathlib import Path

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

    def at_most_ms(self, what: str, values: list[float], asked: float) -> None:
        median = statistics.median(values) * 1000
        spread = f"[{percentile(values, 10) * 1000:.0f}-{percentile(values, 90) * 1000:.0f}]"
        self.claims.append(Claim(what, f"<= {asked:.0f} ms", f"{median:.1f} ms {spread}", median <= asked))

    def at_most_mib(self, what: str, measured: float, asked: float) -> None:
        self.claims.append(
            Claim(what, f"<= {asked:.0f} MiB", f"{measured / MIB:.1f} MiB", measured <= asked * MIB)
        )
