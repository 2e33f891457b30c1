"""Control groups of ours around each sandbox: limits, accounting, the true cause of death, and killing everyone.

    <parent>/<sandbox id>/            carries the limits
    <parent>/<sandbox id>/monitor     conmon
    <parent>/<sandbox id>/payload     the sandbox; the OCI runtime makes it

The same tree on version 2 (one hierarchy, no process in an inner group) and on version 1 and hybrid hosts (one
hierarchy for each controller). Sources: the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/.
"""

from __future__ import annotations

import errno
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from aos.errors import FailedPrecondition
from aos.runtime.state import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from aos.runtime.spec import Limits

__all__ = ["CgroupV1", "CgroupV2", "Cgroups", "detect_cgroups", "kill_all"]

_CPU_PERIOD = 100_000
"""Microseconds; the kernel's default."""
_V1_LIMITING = ("memory", "cpu", "pids")


class Cgroups(Protocol):
    """All calls are synchronous and take well under a millisecond, but for `stay`; `group` is `<parent>/<sandbox id>`."""

    version: str

    @property
    def hierarchies(self) -> tuple[Path, ...]:
        """Where groups are made."""
        ...

    def create(self, group: str, limits: Limits) -> None: ...

    def limit(self, group: str, limits: Limits) -> None: ...

    def add(self, group: str, pid: int) -> None:
        """Put a process into the group's `monitor`."""
        ...

    def spawn_inside(self, group: str, spawn: Callable[[], int]) -> int:
        """Call `spawn`, which starts a process and returns its pid, so that the process and all that it starts are in
        the payload. The calling thread ends soon, the process begins its work later: either may be what moves."""
        ...

    def stay(self) -> None:
        """Move this process to where it is (what for: aos.runtime.quick_moves); OSError where it may not."""
        ...

    def pids(self, group: str) -> list[int]:
        """Host pids of everything in the payload."""
        ...

    def usage(self, group: str) -> Usage: ...

    def oom_kills(self, group: str) -> int: ...

    def frozen(self, group: str) -> bool:
        """Whether the payload is paused."""
        ...

    def remove(self, group: str) -> bool:
        """Remove the group and what is below; False while something still lives in it."""
        ...

    def remove_empty(self, parent: str) -> None:
        """Remove the parent when its last sandbox is gone; nothing happens while it has one."""
        ...


def _make(path: str) -> None:
    """Make a group and its parents; another sandbox's end may remove an empty parent in between."""
    for _ in range(10):
        with suppress(FileNotFoundError):
            os.makedirs(path, exist_ok=True)  # noqa: PTH103 - on the start path
            return
    os.makedirs(path, exist_ok=True)  # noqa: PTH103 - for its error


def _remove_empty(path: Path) -> None:
    with suppress(OSError):
        path.rmdir()


def detect_cgroups(mountinfo: str | None = None) -> Cgroups:
    """The hierarchies of this host, from /proc/self/mountinfo."""
    text = Path("/proc/self/mountinfo").read_text() if mountinfo is None else mountinfo
    v1: dict[str, Path] = {}
    unified: Path | None = None
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        mountpoint = Path(before.split(" ")[4])
        if kind == "cgroup2":
            unified = mountpoint
        elif kind == "cgroup":
            for option in options.split(","):
                v1.setdefault(option, mountpoint)
    if unified is not None and not {"memory", "pids"} & v1.keys():
        return CgroupV2(unified)
    v1 = {name: path for name, path in v1.items() if (path / "cgroup.procs").exists()}
    return CgroupV1(v1, [*v1.values(), *([unified] if unified else [])])


class CgroupV2:
    version = "2"

    def __init__(self, mountpoint: Path) -> None:
        self._root = mountpoint

    @property
    def hierarchies(self) -> tuple[Path, ...]:
        return (self._root,)

    def create(self, group: str, limits: Limits) -> None:
        path = self._root
        for part in group.split("/"):
            _pass_on(path, ("cpu", "memory", "pids", "io"))
            path /= part
            path.mkdir(exist_ok=True)
        _pass_on(path)
        (path / "monitor").mkdir(exist_ok=True)
        self.limit(group, limits)

    def limit(self, group: str, limits: Limits) -> None:
        path = self._root / group
        if limits.memory is not None:
            _set(path / "memory.max", str(limits.memory))
            with suppress(FileNotFoundError):
                (path / "memory.swap.max").write_text("0")
        if limits.cpus is not None:
            _set(path / "cpu.max", f"{max(1000, round(limits.cpus * _CPU_PERIOD))} {_CPU_PERIOD}")
        if limits.pids is not None:
            _set(path / "pids.max", str(limits.pids))

    def add(self, group: str, pid: int) -> None:
        (self._root / group / "monitor" / "cgroup.procs").write_text(str(pid))

    def spawn_inside(self, group: str, spawn: Callable[[], int]) -> int:
        payload = self._root / group / "payload"
        payload.mkdir(exist_ok=True)
        pid = spawn()
        (payload / "cgroup.procs").write_text(str(pid))
        return pid

    def stay(self) -> None:
        _stay({"": self._root})

    def pids(self, group: str) -> list[int]:
        return _pids(self._root / group / "payload")

    def usage(self, group: str) -> Usage:
        path = self._root / group
        cpu = _pairs(path / "cpu.stat").get("usage_usec")
        return Usage(
            cpu_seconds=None if cpu is None else cpu / 1e6,
            memory_bytes=_number(path / "memory.current"),
            memory_peak_bytes=_number(path / "memory.peak"),
            pids=_number(path / "pids.current"),
            read_bytes=_io(path / "io.stat", "rbytes="),
            written_bytes=_io(path / "io.stat", "wbytes="),
        )

    def oom_kills(self, group: str) -> int:
        return _pairs(self._root / group / "memory.events").get("oom_kill", 0)

    def frozen(self, group: str) -> bool:
        return _pairs(self._root / group / "payload" / "cgroup.events").get("frozen") == 1

    def remove(self, group: str) -> bool:
        return _remove(f"{self._root}/{group}")

    def remove_empty(self, parent: str) -> None:
        _remove_empty(self._root / parent)


class CgroupV1:
    version = "1"

    def __init__(self, hierarchies: dict[str, Path], everywhere: list[Path]) -> None:
        """`everywhere`: where the OCI runtime makes its groups, too, on hybrid hosts also the unified hierarchy."""
        self._limiting = {name: hierarchies[name] for name in _V1_LIMITING if name in hierarchies}
        self._cpuacct = hierarchies.get("cpuacct")
        self._freezer = hierarchies.get("freezer")
        self._all = sorted(set(everywhere))
        self._ours = {*self._limiting.values(), *filter(None, (self._cpuacct,))}
        """Where conmon and what is spawned inside are put by us."""
        self._others = {name: path for name, path in hierarchies.items() if path not in self._ours}
        """Hierarchies where `spawn_inside` never has a thread of this process elsewhere."""

    @property
    def hierarchies(self) -> tuple[Path, ...]:
        return tuple(self._all)

    def create(self, group: str, limits: Limits) -> None:
        for path in self._ours:
            _make(f"{path}/{group}/monitor")
        for path in self._all:
            # Also where nothing is limited: the OCI runtime makes its group there, and no other sandbox's end may
            # take away the parent under its hands.
            _make(f"{path}/{group}")
        self.limit(group, limits)

    def limit(self, group: str, limits: Limits) -> None:
        if limits.memory is not None and "memory" in self._limiting:
            path = self._limiting["memory"] / group
            self._limit_memory(path, limits.memory)
        if limits.cpus is not None and "cpu" in self._limiting:
            path = self._limiting["cpu"] / group
            (path / "cpu.cfs_period_us").write_text(str(_CPU_PERIOD))
            (path / "cpu.cfs_quota_us").write_text(str(max(1000, round(limits.cpus * _CPU_PERIOD))))
        if limits.pids is not None and "pids" in self._limiting:
            (self._limiting["pids"] / group / "pids.max").write_text(str(limits.pids))

    def _limit_memory(self, path: Path, limit: int) -> None:
        """memory+swap may never be below memory, so the order depends on the direction."""
        swap = path / "memory.memsw.limit_in_bytes"
        files = [path / "memory.limit_in_bytes", *([swap] if swap.exists() else [])]
        if limit > (_number(files[0]) or 0):
            files.reverse()
        for file in files:
            file.write_text(str(limit))

    def add(self, group: str, pid: int) -> None:
        for path in self._ours:
            with open(f"{path}/{group}/monitor/cgroup.procs", "w") as file:  # noqa: PTH123 - on the start path
                file.write(str(pid))

    def spawn_inside(self, group: str, spawn: Callable[[], int]) -> int:
        """The thread moves: that waits for no grace period of the kernel, as moving a process does."""
        for path in self._ours:
            _make(f"{path}/{group}/payload")
            with open(f"{path}/{group}/payload/tasks", "w") as file:  # noqa: PTH123 - on the start path
                file.write("0")
        return spawn()

    def stay(self) -> None:
        _stay(self._others)

    def pids(self, group: str) -> list[int]:
        for path in self._limiting.values():
            # Not ourselves: a thread that has started a sandbox from inside is there until it has ended, and whoever
            # kills the sandbox meanwhile would kill this process.
            return [pid for pid in _pids(path / group / "payload") if pid != os.getpid()]
        return []

    def usage(self, group: str) -> Usage:
        memory = self._limiting.get("memory", Path("/nonexistent")) / group
        pids = self._limiting.get("pids", Path("/nonexistent")) / group
        cpu = _number(self._cpuacct / group / "cpuacct.usage") if self._cpuacct else None
        return Usage(
            cpu_seconds=None if cpu is None else cpu / 1e9,
            memory_bytes=_number(memory / "memory.usage_in_bytes"),
            memory_peak_bytes=_number(memory / "memory.max_usage_in_bytes"),
            pids=_number(pids / "pids.current"),
        )

    def oom_kills(self, group: str) -> int:
        """Version 1 counts in the group of the victim alone."""
        memory = self._limiting.get("memory")
        if memory is None:
            return 0
        groups = (memory / group, memory / group / "payload")
        return sum(_pairs(path / "memory.oom_control").get("oom_kill", 0) for path in groups)

    def frozen(self, group: str) -> bool:
        if self._freezer is None:
            return False
        try:
            return (self._freezer / group / "payload" / "freezer.state").read_text().strip() != "THAWED"
        except OSError:
            return False

    def remove(self, group: str) -> bool:
        return False not in [_remove(f"{path}/{group}") for path in self._all]

    def remove_empty(self, parent: str) -> None:
        for path in self._all:
            _remove_empty(path / parent)


def _pass_on(path: Path, names: Collection[str] | None = None) -> None:
    """Let the groups below have the controllers that this one has; of another's group we take what it gives."""
    there, given = (
        (path / name).read_text().split() for name in ("cgroup.controllers", "cgroup.subtree_control")
    )
    missing = [name for name in there if name not in given and (names is None or name in names)]
    if missing:
        with suppress(PermissionError):
            (path / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in missing))


def _set(file: Path, value: str) -> None:
    try:
        file.write_text(value)
    except FileNotFoundError as error:
        controller = file.name.partition(".")[0]
        raise FailedPrecondition(
            f"{controller} cannot be limited: this group has no {controller} controller",
            code="cgroups-not-delegated",
            hint="run it without that limit, or have the controller delegated: docs/rootless.md, `aos doctor`",
        ) from error


def kill_all(cgroups: Cgroups, group: str, spare: int = 0) -> None:
    """SIGKILL to everything in the payload but one. What forks meanwhile is caught by the caller's next round."""
    for pid in cgroups.pids(group):
        if pid == spare:
            continue
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _remove(path: str) -> bool:
    """Remove groups, inner ones first. A group is a directory that only `rmdir` empties."""
    try:
        with suppress(OSError):
            os.rmdir(path)  # noqa: PTH106 - most have none below: nothing is listed
            return True
        with os.scandir(path) as entries:
            children = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        if False in [_remove(child) for child in children]:
            return False
        os.rmdir(path)  # noqa: PTH106 - on the start path
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _stay(hierarchies: Mapping[str, Path]) -> None:
    """`hierarchies`: mount points by their names in /proc/self/cgroup; the first that this process is in will do."""
    with open("/proc/self/cgroup") as file:  # noqa: PTH123 - on the start path
        lines = [line.rstrip("\n").split(":", 2) for line in file]
    for _, names, group in lines:
        for name in names.split(","):
            if name in hierarchies:
                with open(f"{hierarchies[name]}{group}/cgroup.procs", "w") as procs:  # noqa: PTH123 - as above
                    procs.write("0")
                return
    raise FileNotFoundError(errno.ENOENT, "no control group of this process is found")


def _pids(path: Path) -> list[int]:
    """Of the group and what is below: an agent may have made groups of its own."""
    found: list[int] = []
    for directory, _, _ in os.walk(path):
        with suppress(OSError):
            found += map(int, Path(directory, "cgroup.procs").read_text().split())
    return found


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _pairs(file: Path) -> dict[str, int]:
    try:
        return {key: int(value) for key, value in (line.split() for line in file.read_text().splitlines())}
    except (OSError, ValueError):
        return {}


def _io(file: Path, key: str) -> int | None:
    try:
        words = file.read_text().split()
    except OSError:
        return None
    return sum(int(word.removeprefix(key)) for word in words if word.startswith(key))
