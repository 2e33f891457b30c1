"""Errors: unknown ids, and specifications that cannot be. They leave nothing."""

from __future__ import annotations

import math
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from aos.errors import FailedPrecondition, InvalidArgument, NotFound
from aos.runtime.spec import AgentSpec, Limits, Mount, ProcessSpec, Rootfs
from aos.testing.runtime.cases import Cases, case

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path
    from typing import Any

    from aos.testing.runtime.kit import Kit

_BAD_PROCESSES: dict[str, Callable[[ProcessSpec], ProcessSpec]] = {
    "no command": lambda process: replace(process, args=()),
    "an empty command": lambda process: replace(process, args=("",)),
    "a zero byte in the command": lambda process: replace(process, args=(*process.args, "a\0b")),
    "a zero byte in the environment": lambda process: replace(process, env=(("NAME", "a\0b"),)),
    "a variable without a name": lambda process: replace(process, env=(("", "value"),)),
    "a variable with = in its name": lambda process: replace(process, env=(("A=B", "value"),)),
    "a relative working directory": lambda process: replace(process, cwd="some/where"),
}
_BAD_LIMITS = {
    "no memory": Limits(memory=0),
    "negative memory": Limits(memory=-1),
    "no processes": Limits(pids=0),
    "no CPU": Limits(cpus=0.0),
    "negative CPU": Limits(cpus=-1.0),
    "CPU that is no number": Limits(cpus=math.nan),
}


class Refusals(Cases):
    @pytest.mark.parametrize(
        "call",
        [
            *("start", "wait", "signal", "pause", "resume", "update", "attach", "logs", "stats", "exec"),
            *("start_exec", "processes", "root", "checkpoint"),
        ],
    )
    @case
    async def test_unknown_sandbox(self, kit: Kit, tmp_path: Path, call: str) -> None:
        runtime, id = kit.make(), self.id()
        calls: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
            "signal": lambda: runtime.signal(id, signal.SIGTERM),
            "update": lambda: runtime.update(id, Limits()),
            "exec": lambda: runtime.exec(id, ProcessSpec(("x",)), attach=False),
            "start_exec": lambda: runtime.start_exec(id, "x"),
            "checkpoint": lambda: runtime.checkpoint(id, tmp_path / "image"),
        }
        needed = {"processes": "top", "root": "copy", "resume": "pause"}.get(call, call)
        if needed in ("pause", "update", "top", "copy", "checkpoint"):
            self.applicable(needed)
        with pytest.raises(NotFound) as refused:
            await (calls.get(call) or (lambda: getattr(runtime, call)(id)))()
        codes = {"sandbox-not-found", "exec-not-found"} if call == "start_exec" else {"sandbox-not-found"}
        assert refused.value.code in codes
        assert id in refused.value.message

    @case
    async def test_unknown_command_is_127(self, kit: Kit) -> None:
        runtime = kit.make()
        with pytest.raises(FailedPrecondition) as refused:
            async with self.running(runtime, self.spec(kit, "missing")):
                pass
        assert refused.value.code == "entrypoint-not-found"
        assert refused.value.subject["exit_status"] == 127
        assert await runtime.list() == []

    @pytest.mark.parametrize("what", _BAD_PROCESSES)
    @case
    async def test_a_process_that_cannot_be(self, kit: Kit, what: str) -> None:
        runtime, process = kit.make(), _BAD_PROCESSES[what](self.process(kit, "sleep"))
        with pytest.raises(InvalidArgument) as refused:
            await runtime.create(self.id(), AgentSpec(process, Rootfs(kit.layers)))
        assert refused.value.code == "spec-invalid"
        assert await runtime.list() == []

    @pytest.mark.parametrize("what", _BAD_PROCESSES)
    @case
    async def test_an_exec_that_cannot_be(self, kit: Kit, what: str) -> None:
        runtime, process = kit.make(), _BAD_PROCESSES[what](self.process(kit, "exit", "0"))
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            with pytest.raises(InvalidArgument) as refused:
                await runtime.exec(id, process, attach=False)
            assert refused.value.code == "spec-invalid"

    @pytest.mark.parametrize("what", _BAD_LIMITS)
    @case
    async def test_limits_that_cannot_be(self, kit: Kit, what: str) -> None:
        runtime = kit.make()
        with pytest.raises(InvalidArgument):
            await runtime.create(self.id(), replace(self.spec(kit, "sleep"), limits=_BAD_LIMITS[what]))
        assert await runtime.list() == []

    @case
    async def test_unknown_user(self, kit: Kit) -> None:
        runtime = kit.make()
        for user in ("nobody-of-this-name", "0:no-group-of-this-name", "-1", "4294967296"):
            with pytest.raises(InvalidArgument) as refused:
                await runtime.create(self.id(), self.spec(kit, "sleep", user=user))
            assert refused.value.code == "user-unknown", user
        assert await runtime.list() == []

    @case
    async def test_missing_mount_source(self, kit: Kit, tmp_path: Path) -> None:
        runtime = kit.make()
        for mount in (
            Mount("bind", "/x", tmp_path / "nothing"),
            Mount("bind", "/x"),
        ):
            with pytest.raises(InvalidArgument) as refused:
                await runtime.create(self.id(), replace(self.spec(kit, "sleep"), mounts=(mount,)))
            assert refused.value.code == "mount-source-missing"
        assert await runtime.list() == []

    @pytest.mark.parametrize("target", ["", "relative", "/", "//", "/a/../b", "/.."])
    @case
    async def test_mount_targets_that_cannot_be(self, kit: Kit, target: str) -> None:
        runtime = kit.make()
        with pytest.raises(InvalidArgument) as refused:
            await runtime.create(
                self.id(), replace(self.spec(kit, "sleep"), mounts=(Mount("tmpfs", target),))
            )
        assert refused.value.code == "spec-invalid"
        assert await runtime.list() == []
