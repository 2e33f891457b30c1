"""Cache mounts: who gets which directory, who waits, and what is listed and removed meanwhile."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from aos.build.cache.mounts import cache_mounts, remove_cache_mount, size_on_disk, take
from aos.build.workspace.locks import lock_file, try_lock

if TYPE_CHECKING:
    from pathlib import Path

    from aos.build.cache.mounts import Sharing


def test_ids_are_names_whatever_they_hold(tmp_path: Path) -> None:
    async def fill() -> None:
        for id in ("../../etc", "a/b", "", "ü\n", "a" * 5000):
            async with take(tmp_path / "mounts", "run", id, "shared") as directory:
                assert directory.parent.parent == tmp_path / "mounts"
                (directory / "x").touch()
        async with take(tmp_path / "mounts", "pip", "a/b", "shared") as directory:
            assert list(directory.iterdir()) == []

    asyncio.run(fill())
    found = [(use.kind, use.id) for use in cache_mounts(tmp_path / "mounts")]
    assert found == [
        ("pip", "a/b"),
        ("run", ""),
        ("run", "../../etc"),
        ("run", "a/b"),
        ("run", "a" * 5000),
        ("run", "ü\n"),
    ]


@pytest.mark.parametrize(
    ("first", "second", "waits", "same"),
    [
        ("shared", "shared", False, True),
        ("shared", "locked", True, True),
        ("locked", "shared", True, True),
        ("locked", "locked", True, True),
        ("private", "private", False, False),
        ("locked", "private", False, False),
    ],
)
def test_who_waits_for_whom(tmp_path: Path, first: Sharing, second: Sharing, waits: bool, same: bool) -> None:
    async def go() -> None:
        said: list[str] = []
        entered = asyncio.Event()
        directories = []

        async def other() -> None:
            async with take(tmp_path, "run", "x", second, waiting=lambda: said.append("wait")) as directory:
                directories.append(directory)
                entered.set()

        async with asyncio.TaskGroup() as group, take(tmp_path, "run", "x", first) as directory:
            directories.append(directory)
            group.create_task(other())
            if not waits:
                await entered.wait()
            while waits and not said:
                await asyncio.sleep(0)
            assert entered.is_set() != waits
            assert any(use.in_use for use in cache_mounts(tmp_path))
            removed = [remove_cache_mount(use) for use in cache_mounts(tmp_path)]
            assert not all(removed)
        assert (directories[0] == directories[1]) == same
        assert bool(said) == waits

    asyncio.run(go())
    assert not any(use.in_use for use in cache_mounts(tmp_path))


def test_a_cancelled_wait_leaves_the_lock_to_others(tmp_path: Path) -> None:
    async def go() -> None:
        held = try_lock(tmp_path / "lock")
        assert held is not None
        waiting = asyncio.create_task(lock_file(tmp_path / "lock"))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        os.close(held)
        os.close(await lock_file(tmp_path / "lock"))

    asyncio.run(go())


def test_a_cache_that_is_removed_while_somebody_waits_is_made_again(tmp_path: Path) -> None:
    async def go() -> None:
        async with take(tmp_path, "run", "x", "locked") as directory:
            (directory / "old").touch()
        (use,) = cache_mounts(tmp_path)
        lock = try_lock(use.directory.with_name("0.lock"))
        assert lock is not None
        waits = asyncio.Event()

        async def other() -> list[str]:
            async with take(tmp_path, "run", "x", "locked", waiting=waits.set) as directory:
                assert (directory.parent / "0.lock").exists()
                return [path.name for path in directory.iterdir()]

        waiter = asyncio.create_task(other())
        await waits.wait()
        (use.directory / "old").unlink()
        use.directory.rmdir()
        use.directory.with_name("0.lock").unlink()
        os.close(lock)
        assert await waiter == []

    asyncio.run(go())


def test_a_description_that_is_torn_hides_nothing(tmp_path: Path) -> None:
    async def fill() -> None:
        async with take(tmp_path, "run", "x", "shared") as directory:
            (directory / "data").write_bytes(bytes(100_000))

    asyncio.run(fill())
    (about,) = tmp_path.rglob("about.json")
    about.write_text("{")
    (use,) = cache_mounts(tmp_path)
    assert use.kind == "run"
    assert use.id == use.directory.parent.name
    assert size_on_disk(use.directory) >= 100_000
    assert remove_cache_mount(use)
    assert list(tmp_path.iterdir()) == []
