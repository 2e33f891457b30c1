"""The `memory` backend: sandboxes as coroutines in this process, for tests and simulation.

It isolates nothing and executes no image. A command's first word names a program that was registered; streams are
real sockets that speak the attach protocol, logs are real files, faults are injected by name. Deterministic as
far as its programs are.
"""

from aos.runtime.backends.memory.backend import MemoryRuntime
from aos.runtime.backends.memory.process import MemoryProcess

__all__ = ["MemoryProcess", "MemoryRuntime"]
