"""The end of all traces of a sandbox, whatever state a crash has left it in."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING

from aos.errors import AosError, Internal
from aos.runtime.backends.supervised.being_made import until_made
from aos.runtime.backends.supervised.conmon import kill_tree
from aos.runtime.backends.supervised.connecting import release
from aos.runtime.backends.supervised.host import wrong_state
from aos.runtime.backends.supervised.launch import reap_later
from aos.runtime.backends.supervised.record import Record, remove_tree
from aos.runtime.cgroups import kill_all
from aos.runtime.state import SandboxState

if TYPE_CHECKING:
    from aos.ids import SandboxId
    from aos.runtime.backends.supervised.conmon import Conmon
    from aos.runtime.backends.supervised.ending import Ends
    from aos.runtime.backends.supervised.host import Host

__all__ = ["Removal"]

_KILL_SECONDS = 10.0
"""How long a killed sandbox may take to be gone."""


class Removal:
    def __init__(self, host: Host, ends: Ends) -> None:
        self._host = host
        self._ends = ends

    async def delete(self, id: SandboxId, *, force: bool = False) -> None:
        directory = self._host.sandboxes / id
        if not directory.exists():
            return
        if not force and not (state := self._host.state(id)).can_delete():
            raise wrong_state(id, state, "delete", hint="stop it first, or force the deletion")
        await until_made(directory, lambda: kill_tree(directory))
        if not directory.exists():
            return
        state, record = self._host.state(id), Record.read(directory)
        if state is SandboxState.CREATING:
            await self._end_half_made(id)
        elif state is not SandboxState.STOPPED:
            await self._host.kill_payload(id)
        if any(
            (directory / "exec").glob("*")
        ):  # the conmon of one that was not started waits for that, for ever
            for bundle in (directory / "exec").iterdir():
                kill_tree(bundle)
        if record is not None:
            try:
                async with asyncio.timeout(_KILL_SECONDS):
                    await asyncio.shield(self._ends.watch(id, record))
            except TimeoutError as error:
                raise Internal(
                    f"sandbox {id} did not end within {_KILL_SECONDS:g} s of SIGKILL",
                    code="sandbox-stuck",
                    hint="a process in uninterruptible sleep keeps it; delete it again later",
                    sandbox=id,
                ) from error
        await release(self._host, id)
        await self._remove_group(id)
        # Renamed first: a directory that is there is a sandbox, whole or half-made, and never a half-removed one.
        doomed = directory.with_name(f".{id}.{os.urandom(4).hex()}")  # one may be left of an earlier namesake
        self._host.tool.forget(self._host, id)
        with contextlib.suppress(FileNotFoundError):
            directory.rename(doomed)
        self._host.tool.forget(self._host, id)  # again: a call that ended before saw a sandbox
        self._ends.forget(id)
        if record is None:
            self._host.id_ranges.sweep(directory.parent)
        elif record.ids:
            self._host.id_ranges.release(record.ids[0], directory)
        await asyncio.to_thread(remove_tree, doomed)

    async def give_up(self, id: SandboxId, conmon: Conmon | None) -> None:
        """Creation failed: remove every trace, whatever else happens meanwhile."""
        if conmon is not None:
            conmon.close()
            reap_later(conmon.pid)
        cleaning = asyncio.create_task(self._delete_quietly(id))
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(cleaning)
        if not cleaning.done():
            await asyncio.wait([cleaning])

    async def _delete_quietly(self, id: SandboxId) -> None:
        """The failure that led here is what the caller must hear of; what stays is found by `list`."""
        with contextlib.suppress(AosError, OSError):
            await self.delete(id, force=True)

    async def _end_half_made(self, id: SandboxId) -> None:
        """No record, or no process yet: a conmon may run that nobody knows, and under it a runtime that hangs."""
        kill_tree(self._host.sandboxes / id)
        await self._host.kill_payload(id)
        with contextlib.suppress(AosError):  # what hung before may hang again, or be gone
            await self._host.call(id, "delete", "--force")

    async def _remove_group(self, id: SandboxId) -> None:
        """A group stays busy for a moment after its last process has ended."""
        group = self._host.group(id)

        def remove() -> bool:
            removed = self._host.cgroups.remove(group)
            if removed:
                self._host.cgroups.remove_empty(self._host.cgroup_parent)
            return removed

        for attempt in range(60):
            if await asyncio.to_thread(remove):
                return
            kill_all(self._host.cgroups, group)
            await asyncio.sleep(0.001 * 1.2**attempt if attempt < 30 else 0.2)
        raise Internal(
            f"the cgroup of sandbox {id} does not become empty",
            code="sandbox-stuck",
            hint="a process in uninterruptible sleep keeps it; delete it again later",
            sandbox=id,
        )
