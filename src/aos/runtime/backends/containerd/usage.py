"""What containerd's metrics say of a sandbox: its cgroup's, in version 1 or 2; a virtual machine's come as either."""

from __future__ import annotations

from typing import Any

from aos.runtime.state import Usage

__all__ = ["usage_of"]


def usage_of(metrics: Any) -> Usage:
    """From the `data` of a containerd.types.Metric; what it does not tell, or in what we cannot read, is None."""
    from aos.runtime.backends.containerd._api.types import cgroup1_pb2, cgroup2_pb2

    kind = metrics.type_url.rpartition("/")[2]
    if kind == "io.containerd.cgroups.v1.Metrics":
        v1 = cgroup1_pb2.Metrics.FromString(metrics.value)
        blocks = v1.blkio.io_service_bytes_recursive
        return Usage(
            cpu_seconds=v1.cpu.usage.total / 1e9,
            memory_bytes=v1.memory.usage.usage,
            memory_peak_bytes=v1.memory.usage.max,
            pids=v1.pids.current,
            read_bytes=_sum(blocks, "read"),
            written_bytes=_sum(blocks, "write"),
        )
    if kind == "io.containerd.cgroups.v2.Metrics":
        v2 = cgroup2_pb2.Metrics.FromString(metrics.value)
        return Usage(
            cpu_seconds=v2.cpu.usage_usec / 1e6,
            memory_bytes=v2.memory.usage,
            memory_peak_bytes=v2.memory.max_usage or None,  # containerd 2 tells it, on Linux 5.19 and later
            pids=v2.pids.current,
            read_bytes=sum(entry.rbytes for entry in v2.io.usage) if v2.io.usage else None,
            written_bytes=sum(entry.wbytes for entry in v2.io.usage) if v2.io.usage else None,
        )
    return Usage()


def _sum(entries: Any, operation: str) -> int | None:
    return sum(entry.value for entry in entries if entry.op.lower() == operation) if entries else None
