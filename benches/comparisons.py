"""What is measured, by name: each function runs one comparison and returns its claims and its series."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benches import agent_comparisons as agents
from benches import build_comparisons as builds

if TYPE_CHECKING:
    from collections.abc import Callable

    from benches.outcome import Contenders, Outcome

__all__ = ["COMPARISONS"]

COMPARISONS: dict[str, Callable[[Contenders, int], Outcome]] = {
    "run": agents.run_true,
    "network": agents.run_with_network,
    "containerd": agents.in_containerd,
    "exec": agents.exec_true,
    "commands": agents.commands,
    "first-use": agents.first_use,
    "memory": agents.memory,
    "build-unchanged": builds.unchanged,
    "build-example": builds.unchanged_example,
    "build-code": builds.code_only,
    "build-copy": builds.copy_small_files,
    "build-large": builds.copy_large_files,
    "build-parallel": builds.two_stages,
}
