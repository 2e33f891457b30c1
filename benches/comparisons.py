"""What is measured, by name: each function runs one comparison and returns its claims and its series."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benches import agent_comparisons as agents
from benches import build_comparisons as builds
from benches import crowd_comparisons as crowds
from benches import network_comparisons as networks
from benches import runtime_comparisons as runtimes

if TYPE_CHECKING:
    from collections.abc import Callable

    from benches.outcome import Contenders, Outcome

__all__ = ["COMPARISONS"]

COMPARISONS: dict[str, Callable[[Contenders, int], Outcome]] = {
    "run": agents.run_true,
    "run-warm": agents.run_from_pool,
    "run-at-once": crowds.eight_at_once,
    "run-crun": runtimes.run_with_crun,
    "run-gvisor": runtimes.run_in_gvisor,
    "network": networks.run_with_network,
    "network-down": networks.take_down,
    "containerd": agents.in_containerd,
    "exec": agents.exec_true,
    "exec-gvisor": runtimes.exec_in_gvisor,
    "commands": agents.commands,
    "first-use": agents.first_use,
    "density": crowds.density,
    "build-unchanged": builds.unchanged,
    "build-example": builds.unchanged_example,
    "build-code": builds.code_only,
    "build-copy": builds.copy_small_files,
    "build-large": builds.copy_large_files,
    "build-parallel": builds.two_stages,
}
