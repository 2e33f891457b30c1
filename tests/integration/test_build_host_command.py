"""Commands of the host that a step runs die with the build, and their mounts with them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aos.build.host.command import run_on_host
from aos.errors import FailedPrecondition

pytestmark = pytest.mark.root

SCRIPT = """
import asyncio, sys
from aos.build.host.command import run_on_host
command = "mount -t tmpfs aos-test " + sys.argv[1] + "; echo ready; sleep 1000 & sleep 1000"
asyncio.run(run_on_host(["/bin/sh", "-c", command], {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, lambda line: print(line, flush=True)))
"""


def _descendants(pid: int) -> set[int]:
    found: set[int] = set()
    pending = [pid]
    while pending:
        parent = pending.pop()
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            children = {int(word) for word in task.read_text().split()}
            pending += children - found
            found |= children
    return found


def _lives(pid: int) -> bool:
    """Whether a process exists and is more than a zombie that somebody has yet to reap."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_kill_9_of_the_build_leaves_no_process_and_no_mount(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    deadline = time.monotonic() + 10
    while len(below := _descendants(process.pid)) < 3:  # it speaks before it has started all of them
        assert time.monotonic() < deadline, below
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    process.kill()
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 10
    while any(_lives(pid) for pid in below):
        assert time.monotonic() < deadline, "something outlived the build"
        time.sleep(0.01)


def test_cancelling_ends_the_command() -> None:
    async def main() -> None:
        lines: list[str] = []
        ready = asyncio.Event()

        def output(line: str) -> None:
            lines.append(line)
            ready.set()

        environ = {"PATH": "/usr/bin:/bin"}
        task = asyncio.create_task(run_on_host(["/bin/sh", "-c", "echo up; sleep 1000"], environ, output))
        await ready.wait()
        below = _descendants(os.getpid())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        deadline = time.monotonic() + 10
        while any(_lives(pid) for pid in below):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)

    asyncio.run(main())


def test_output_exit_code_and_umask() -> None:
    lines: list[str] = []
    code, tail = asyncio.run(
        run_on_host(
            ["/bin/sh", "-c", "umask; seq 100; printf end; exit 3"], {"PATH": "/usr/bin:/bin"}, lines.append
        )
    )
    assert (code, lines[0], lines[-1], len(lines)) == (3, "0022", "end", 102)
    assert tail == lines[-40:]


def test_without_util_linux_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(FailedPrecondition) as caught:
        asyncio.run(run_on_host(["true"], {}, print))
    assert caught.value.code == "util-linux-missing"


def test_a_command_that_floods_its_output_ends_when_it_is_cancelled() -> None:
    async def flood() -> None:
        async with asyncio.timeout(1):
            await run_on_host(["yes", "x" * 100], {"PATH": "/usr/bin:/bin"}, lambda line: time.sleep(0.001))

    began = time.monotonic()
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(flood(), 20))
    assert time.monotonic() - began < 10
