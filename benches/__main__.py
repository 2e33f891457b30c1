"""`make bench`: run the comparisons, print what was asked beside what was measured, keep the raw figures.

Choose with ARGS: `make bench ARGS="run exec --rounds 20"`. Exits with 1 when a claim does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benches import host
from benches.comparisons import COMPARISONS
from benches.measure import percentile
from benches.ours import Installation, busybox_tree
from benches.outcome import Claim, Contenders, Outcome
from benches.peers import Runc, buildah, containerd, podman

RESULTS = Path(__file__).parent / "results"
PEERS = Path(__file__).parent.parent / "tools/peers"


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("comparisons", nargs="*", metavar="COMPARISON", help=", ".join(COMPARISONS))
    parser.add_argument("--rounds", type=int, default=100, help="measured rounds (default: 100)")
    parser.add_argument("--output", type=Path, help="where the raw figures go (default: benches/results)")
    args = parser.parse_args()
    chosen = args.comparisons or list(COMPARISONS)
    if unknown := set(chosen) - set(COMPARISONS):
        parser.error(f"no such comparison: {', '.join(unknown)}")
    if os.getuid() != 0:
        parser.error("needs root (sudo make bench)")

    # Programs that were built here (tools/peers), and those that an ordinary user's PATH lacks.
    built = subprocess.run([PEERS, "--path"], check=True, capture_output=True, text=True).stdout.strip()
    os.environ["PATH"] += f":{built}:/usr/sbin:/sbin"
    begin = time.time()
    outcomes = measure(chosen, args.rounds)
    claims = [claim for outcome in outcomes.values() for claim in outcome.claims]
    print_series(outcomes)
    print_claims(claims)
    for name, outcome in outcomes.items():
        if why := outcome.facts.get("not measured"):
            print(f"{name}: not measured: {why}")
    output = args.output or RESULTS / f"{time.strftime('%Y-%m-%d', time.gmtime(begin))}.json"
    output.write_text(json.dumps(as_json(begin, args.rounds, outcomes), indent=1) + "\n")
    print(f"\nraw figures: {output}")
    return 0 if all(claim.holds for claim in claims) else 1


def measure(chosen: list[str], rounds: int) -> dict[str, Outcome]:
    home = Path(tempfile.mkdtemp(prefix="aos-bench-"))
    home.chmod(0o711)  # agents with user ids of their own pass through, as through /run/containerd
    ours = Installation(home / "ours")
    rootfs = busybox_tree(home / "rootfs")
    try:
        with (
            containerd(home / "containerd", rootfs) as ctr,
            podman(home / "podman", rootfs) as pod,
            buildah(home / "buildah") as builder,
        ):
            contenders = Contenders(ours, Runc(home / "runc", rootfs), pod, ctr, builder, rootfs, home)
            ours.build_busybox()
            outcomes = {}
            for name in chosen:
                print(f"{name} …", file=sys.stderr)
                outcomes[name] = COMPARISONS[name](contenders, rounds)
            return outcomes
    finally:
        ours.end()
        shutil.rmtree(home)


def print_series(outcomes: dict[str, Outcome]) -> None:
    rows: list[tuple[str, ...]] = [("", "p50", "p95", "p99", "ms")]
    for outcome in outcomes.values():
        for one in outcome.series:
            figures = [f"{percentile(one.seconds, share) * 1000:.1f}" for share in (50, 95, 99)]
            rows.append((one.command.name, *figures, f"of {len(one.seconds)}"))
    print_table(rows)


def print_claims(claims: list[Claim]) -> None:
    print()
    marks = {True: "yes", False: "NO"}
    rows: list[tuple[str, ...]] = [("", "asked", "measured", "holds")]
    print_table(rows + [(claim.what, claim.asked, claim.measured, marks[claim.holds]) for claim in claims])


def print_table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def as_json(begin: float, rounds: int, outcomes: dict[str, Outcome]) -> dict[str, object]:
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begin)),
        "host": host.facts(),
        "rounds": rounds,
        "comparisons": {
            name: {
                "claims": [
                    {"what": c.what, "asked": c.asked, "measured": c.measured, "holds": c.holds}
                    for c in outcome.claims
                ],
                "series": {one.command.name: one.to_json() for one in outcome.series},
                **({"facts": outcome.facts} if outcome.facts else {}),
            }
            for name, outcome in outcomes.items()
        },
    }


sys.exit(main())
