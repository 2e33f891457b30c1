"""What a backend says of itself, and that it refuses what it does not declare."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, get_args

import pytest

from aos.errors import NotImplemented
from aos.runtime.protocol import Isolation
from aos.runtime.spec import Limits
from aos.testing.runtime.cases import Cases, case

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path
    from typing import Any

    from aos.testing.runtime.kit import Kit


class Identity(Cases):
    @case
    async def test_info_names_the_backend_and_its_capabilities(self, kit: Kit) -> None:
        info = await kit.make().info()
        assert info.name and info.version
        assert {"attach", "exec", "logs"} <= info.capabilities
        assert all(re.fullmatch("[a-z]+(-[a-z]+)*", word) for word in info.capabilities)
        assert info.isolation in get_args(Isolation)

    @case
    async def test_info_is_the_same_from_every_instance(self, kit: Kit) -> None:
        assert await kit.make().info() == await kit.make().info()

    @case
    async def test_what_a_backend_lacks_names_an_alternative(self, kit: Kit, tmp_path: Path) -> None:
        runtime = kit.make()
        capabilities = (await runtime.info()).capabilities
        image, spec = tmp_path / "image", self.spec(kit, "sleep")
        async with self.created(runtime, spec) as id:
            early: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
                "prepare": lambda: runtime.exec(id, self.process(kit, "exit", "0"), attach=False),
                "rename": lambda: runtime.rename(id, "other"),
            }
            late: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
                "checkpoint": lambda: runtime.checkpoint(id, image),
                "restore": lambda: runtime.restore(self.id(), spec, image),
                "copy": lambda: runtime.root(id),
                "top": lambda: runtime.processes(id),
                "connect": lambda: runtime.connect(id, 80),
                "pause": lambda: runtime.pause(id),
                "update": lambda: runtime.update(id, Limits(memory=64 << 20)),
                "update-pids": lambda: runtime.update(id, Limits(pids=32)),
            }
            for calls in (early, late):
                for capability in calls.keys() - capabilities:
                    with pytest.raises(NotImplemented) as refused:
                        await calls[capability]()
                    assert refused.value.code == "capability-missing", capability
                    assert refused.value.hint, capability
                if calls is early:
                    await runtime.start(id)
