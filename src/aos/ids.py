"""Distinct types for identifiers, and where fresh ones come from (injected, so that tests are deterministic)."""

from __future__ import annotations

import os
from typing import NewType, Protocol

__all__ = ["AgentId", "IdSource", "ProcessId", "RandomIds", "SandboxId"]

AgentId = NewType("AgentId", str)
"""12 lower-case hex digits; names belong to agents, an id is for ever."""

ProcessId = NewType("ProcessId", int)
"""The kernel's own pid: counts up from 1 over the life of a node, never reused."""

SandboxId = NewType("SandboxId", str)
"""What a runtime backend knows an environment by: `<agent id>-<pid>`, `build-<12 hex>` for build steps."""


class IdSource(Protocol):
    def fresh(self) -> str:
        """12 lower-case hex digits that were not returned before."""
        ...


class RandomIds:
    def fresh(self) -> str:
        return os.urandom(6).hex()
