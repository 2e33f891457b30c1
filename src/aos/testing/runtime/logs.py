"""The log: whole, in order, in the format of Kubernetes' container runtime interface."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from aos.testing.runtime.cases import Cases, case, collect, whole_lines

if TYPE_CHECKING:
    from pathlib import Path

    from aos.runtime.spec import AgentSpec
    from aos.testing.runtime.kit import Kit

_LINE = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(?:Z|[+-]\d\d:\d\d)) (stdout|stderr) ([PF]) (.*)")


class Logs(Cases):
    async def log(self, kit: Kit, spec: AgentSpec) -> list[tuple[bytes, ...]]:
        """The log of a run to its end: time, stream, tag, text."""
        runtime = kit.make()
        async with self.running(runtime, spec) as id:
            await runtime.wait(id)
            lines = (await runtime.logs(id)).read_bytes().split(b"\n")
        assert lines.pop() == b""  # whatever was written, the log's last line is whole
        matches = [_LINE.fullmatch(line) for line in lines]
        assert all(matches), lines
        return [match.groups() for match in matches if match]

    @case
    async def test_log_has_both_streams(self, kit: Kit) -> None:
        found = await self.log(kit, self.spec(kit, "print", "one", "two"))
        assert sorted(fields[1:] for fields in found) == [
            (b"stderr", b"F", b"two"),
            (b"stdout", b"F", b"one"),
        ]

    @case
    async def test_log_keeps_the_order(self, kit: Kit) -> None:
        found = await self.log(kit, self.spec(kit, "lines", "1000"))
        log = "".join(" ".join(map(bytes.decode, fields)) + "\n" for fields in found)
        assert whole_lines(log) == [("stdout", f"line {number}") for number in range(1, 1001)]
        times = [datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", at.decode())) for at, *_ in found]
        assert times == sorted(times)

    @case
    async def test_empty_lines_are_lines(self, kit: Kit) -> None:
        found = await self.log(kit, self.spec(kit, "print", "", "x"))
        assert [fields[2:] for fields in found if fields[1] == b"stdout"] == [(b"F", b"")]

    @case
    async def test_a_line_without_an_end_is_partial(self, kit: Kit) -> None:
        [(_, stream, tag, text)] = await self.log(kit, self.spec(kit, "tail", "no end"))
        assert (stream, tag, text) == (b"stdout", b"P", b"no end")

    @case
    async def test_a_long_line_is_whole_when_its_parts_are_joined(self, kit: Kit) -> None:
        text = "0123456789" * 5000
        found = await self.log(kit, self.spec(kit, "print", text, ""))
        parts = [fields for fields in found if fields[1] == b"stdout"]
        assert b"".join(part for *_, part in parts).decode() == text
        assert [tag for _, _, tag, _ in parts] == [b"P"] * (len(parts) - 1) + [b"F"]

    @case
    async def test_bytes_that_are_no_text_are_kept(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.created(runtime, self.spec(kit, "cat", stdin=True)) as id:
            stdio = await runtime.attach(id)
            await runtime.start(id)
            await collect(stdio, b"\xff\xfe\x80\n")
            await runtime.wait(id)
            assert b" \xff\xfe\x80\n" in (await runtime.logs(id)).read_bytes()

    @case
    async def test_log_is_there_from_create_and_gone_with_the_sandbox(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.created(runtime, self.spec(kit, "print", "a", "b")) as id:
            log = await runtime.logs(id)
            assert log.read_bytes() == b""
            await runtime.start(id)
            await runtime.wait(id)
            assert log.read_bytes() and await runtime.logs(id) == log
            await runtime.delete(id)
            assert not log.exists()

    @case
    async def test_a_log_that_was_given_is_appended_to_and_kept(self, kit: Kit, tmp_path: Path) -> None:
        runtime, log = kit.make(), tmp_path / "log"
        for word in ("first", "second"):
            async with self.running(runtime, replace(self.spec(kit, "print", word, ""), log=log)) as id:
                await runtime.wait(id)
                assert await runtime.logs(id) == log
        texts = [line.split(" ", 3)[3] for line in log.read_text().splitlines()]
        assert [text for text in texts if text] == ["first", "second"]

    @case
    async def test_who_follows_a_log_hears_the_next_sandbox_too(self, kit: Kit, tmp_path: Path) -> None:
        runtime, log = kit.make(), tmp_path / "log"
        heard = b""
        async with self.running(runtime, replace(self.spec(kit, "print", "one", ""), log=log)) as id:
            await runtime.wait(id)
            follower = log.open("rb")
            heard += follower.read()
        with follower:
            assert b" one\n" in heard
            async with self.running(runtime, replace(self.spec(kit, "count"), log=log)):
                while b" F 2\n" not in heard:
                    heard += follower.read()
                    await asyncio.sleep(0.01)

    @case
    async def test_log_is_current(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "count")) as id:
            for beyond in (1, 4):
                await self.counted(runtime, id, beyond)

    @case
    async def test_what_an_exec_says_is_not_in_the_log(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.running(runtime, self.spec(kit, "sleep")) as id:
            assert (await self.execute(runtime, id, self.process(kit, "print", "aside", ""))).out
            assert (await runtime.logs(id)).read_bytes() == b""
