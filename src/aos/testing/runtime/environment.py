"""What a process is given: its words, its variables, its host name."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from aos.errors import FailedPrecondition
from aos.runtime.state import SandboxState
from aos.testing.runtime.cases import Cases, case, needs

if TYPE_CHECKING:
    from aos.testing.runtime.kit import Kit


class Environment(Cases):
    @pytest.mark.parametrize(
        "value", ["hello", "", "two words", "ünïcödé ☃", "a=b=c", "$HOME `x` \"q\" 'p' \\"]
    )
    @case
    async def test_a_variable_arrives_as_it_is(self, kit: Kit, value: str) -> None:
        spec = self.spec(kit, "env", "GREETING", env=(("GREETING", value),))
        assert await self.output(kit, spec) == f"{value}\n"

    @case
    async def test_the_later_variable_wins(self, kit: Kit) -> None:
        spec = self.spec(kit, "env", "NAME", env=(("NAME", "first"), ("OTHER", "x"), ("NAME", "second")))
        assert await self.output(kit, spec) == "second\n"

    @case
    async def test_nothing_of_the_caller_s_environment_arrives(
        self, kit: Kit, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OF_THE_CALLER", "secret")
        assert await self.output(kit, self.spec(kit, "env", "OF_THE_CALLER")) == "\n"

    @case
    async def test_there_is_a_path(self, kit: Kit) -> None:
        assert "/bin" in (await self.output(kit, self.spec(kit, "env", "PATH"))).strip().split(":")
        given = self.process(kit, "env", "PATH", env=(("PATH", "/sbin:/usr/bin:/bin:/mine"),))
        assert await self.output(kit, replace(self.spec(kit, "sleep"), process=given)) == (
            "/sbin:/usr/bin:/bin:/mine\n"
        )

    @pytest.mark.parametrize("text", ["", "two words", "*", "-n", "ünïcödé", "line\nbreak", "$(false)"])
    @case
    async def test_a_word_arrives_as_it_is(self, kit: Kit, text: str) -> None:
        run = await self.run(kit.make(), self.spec(kit, "tail", text))
        assert run.out.decode() == text

    @case
    async def test_a_long_word_arrives_whole(self, kit: Kit) -> None:
        text = "0123456789abcdef" * 4096  # half of what Linux takes as one word (MAX_ARG_STRLEN)
        run = await self.run(kit.make(), self.spec(kit, "tail", text))
        assert run.out.decode() == text

    @case
    async def test_host_name(self, kit: Kit) -> None:
        assert await self.output(kit, self.spec(kit, "hostname")) == "agent\n"
        named = replace(self.spec(kit, "hostname"), hostname="some-body.example")
        assert await self.output(kit, named) == "some-body.example\n"

    @needs("files")
    @case
    async def test_working_directory_is_made(self, kit: Kit) -> None:
        assert await self.output(kit, self.spec(kit, "sh", "pwd")) == "/\n"
        spec = self.spec(kit, "sh", "pwd; stat -c %a .", cwd="/some/where")
        assert await self.output(kit, spec) == "/some/where\n755\n"

    @needs("rename")
    @case
    async def test_what_waits_for_its_start_can_be_renamed(self, kit: Kit) -> None:
        runtime = kit.make()
        async with self.created(runtime, self.spec(kit, "hostname")) as id:
            await runtime.rename(id, "some-body.example")
            assert await self.state(runtime, id) is SandboxState.CREATED
            await runtime.start(id)
            await runtime.wait(id)
            assert (await runtime.logs(id)).read_text().endswith(" F some-body.example\n")
            with pytest.raises(FailedPrecondition) as refused:
                await runtime.rename(id, "too-late")
            assert refused.value.code == "sandbox-state"

    @needs("rename", "files")
    @case
    async def test_a_new_name_is_in_etc_hosts(self, kit: Kit) -> None:
        runtime, spec = kit.make(), self.spec(kit, "sh", "cat /etc/hosts")
        async with self.created(runtime, spec) as id:
            before = (await self.run(kit.make(), spec)).out.decode()
            await runtime.rename(id, "somebody")
            await runtime.start(id)
            await runtime.wait(id)
            said = [line.split(" ", 3)[3] for line in (await runtime.logs(id)).read_text().splitlines()]
            assert said == before.replace("agent", "somebody").splitlines()
