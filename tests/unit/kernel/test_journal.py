"""The journal: what was acknowledged is there afterwards; what is damaged is refused and left alone."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from aos.errors import DataLoss, ResourceExhausted, Unavailable
from aos.kernel import journal as journal_module
from aos.kernel.journal import Journal, MemoryJournal, SqliteJournal
from aos.kernel.process.machine import Machine
from aos.kernel.process.records import ExitRecord, Program

if TYPE_CHECKING:
    from pathlib import Path

    from aos.kernel.process.events import Event

PROGRAM = Program("it:1", "sha256:0", "it", "1.0.0", ("x",), "", {"env": {"A": "ü"}})


@pytest.fixture(params=["sqlite", "memory"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Journal:
    made: Journal = SqliteJournal(tmp_path / "journal") if request.param == "sqlite" else MemoryJournal()
    request.addfinalizer(made.close)
    return made


def agent(machine: Machine, number: int) -> list[Event]:
    id = f"{number:012x}"
    return machine.run(id, f"n{number}", PROGRAM, restart="never", remove=False, at=float(number)).events


def test_events_come_back_as_state(journal: Journal) -> None:
    machine = Machine()

    async def go() -> None:
        for number in range(5):
            await journal.append(agent(machine, number))
        end = ExitRecord(1, "exited", 3, None, 3, 1.0, 2.0, {"cpu_seconds": 0.5}, "tail", "")
        await journal.append(machine.exited(1, end, at=9.0).events)

    asyncio.run(go())
    assert journal.load() == machine.state
    assert journal.cursor() == 11
    assert journal.info().events == 11
    last = journal.last_exit("000000000000")
    assert last is not None and (last.code, last.usage) == (3, {"cpu_seconds": 0.5})
    assert journal.last_exit("nobody") is None
    assert len(journal.events_of("000000000001")) == 2


def test_events_are_read_behind_a_cursor(journal: Journal) -> None:
    machine = Machine()
    for number in range(3):
        asyncio.run(journal.append(agent(machine, number)))
    first = journal.read(0, 2)
    rest = journal.read(first[-1].cursor, 100)
    assert [entry.cursor for entry in (*first, *rest)] == [1, 2, 3, 4, 5, 6]


def test_many_at_once_share_commits_and_keep_their_order(journal: Journal) -> None:
    machine = Machine()

    async def go() -> None:
        await asyncio.gather(*(journal.append(agent(machine, number)) for number in range(200)))

    asyncio.run(go())
    assert journal.load() == machine.state


def test_a_snapshot_shortens_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "SNAPSHOT_EVERY", 10)
    machine, journal = Machine(), SqliteJournal(tmp_path / "journal")

    async def go() -> None:
        for number in range(40):
            await journal.append(agent(machine, number))

    asyncio.run(go())
    journal.close()
    with sqlite3.connect(tmp_path / "journal") as db:
        assert db.execute("SELECT count(*) FROM snapshots").fetchone() == (2,)
        db.execute("DELETE FROM events WHERE cursor <= 60")  # what a snapshot covers is not needed
    db.close()
    again = SqliteJournal(tmp_path / "journal")
    assert again.load() == machine.state
    again.close()


def test_a_snapshot_of_another_shape_is_passed_over(tmp_path: Path) -> None:
    """As an earlier version wrote it: its agents had no replicas."""
    machine, journal = Machine(), SqliteJournal(tmp_path / "journal")
    asyncio.run(journal.append(agent(machine, 1)))
    journal.close()
    older = b'{"agents":{"x":{"id":"x","restart":"never"}},"processes":{},"names":{},"last_pid":9}'
    with sqlite3.connect(tmp_path / "journal") as db:
        db.execute("INSERT INTO snapshots VALUES (1, ?)", (older,))
    db.close()
    again = SqliteJournal(tmp_path / "journal")
    assert again.load() == machine.state
    again.close()


@pytest.mark.parametrize("damage", ["garbage", "event", "emptied"])
def test_damage_is_refused_and_left_alone(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "journal"
    journal = SqliteJournal(path)
    asyncio.run(journal.append(agent(Machine(), 1)))
    journal.close()
    if damage == "garbage":
        path.write_bytes(b"no database" * 1000)
    elif damage == "emptied":
        path.write_bytes(b"")
    else:
        with sqlite3.connect(path) as db:
            db.execute("UPDATE events SET event = ?", (b'{"type":"from.the.future"}',))
        db.close()
    before = path.read_bytes()
    with pytest.raises(DataLoss) as refused:
        SqliteJournal(path).load()
    assert refused.value.code == "journal-damaged"
    assert "move it" in (refused.value.hint or "")
    assert path.read_bytes() == before


def test_a_write_ahead_log_alone_is_damage(tmp_path: Path) -> None:
    """It would be applied to whatever took the journal's place."""
    (tmp_path / "journal-wal").write_bytes(b"x")
    with pytest.raises(DataLoss) as refused:
        SqliteJournal(tmp_path / "journal")
    assert refused.value.code == "journal-damaged"


def test_a_start_that_was_killed_leaves_room_for_the_next(tmp_path: Path) -> None:
    (tmp_path / ".journal.new").write_bytes(b"half")
    journal = SqliteJournal(tmp_path / "journal")
    assert journal.load().agents == {}
    journal.close()


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    SqliteJournal(tmp_path / "journal").close()
    with sqlite3.connect(tmp_path / "journal") as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(Unavailable) as refused:
        SqliteJournal(tmp_path / "journal")
    assert refused.value.code == "journal-newer"


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    SqliteJournal(tmp_path / "deep" / "journal").close()
    assert (tmp_path / "deep" / "journal").stat().st_mode & 0o077 == 0


@pytest.mark.root
def test_a_full_disk_refuses_and_loses_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", disk], check=True)
    try:
        machine, journal = Machine(), SqliteJournal(disk / "journal")

        async def fill() -> int:
            for number in range(10_000):
                try:
                    await journal.append(agent(machine, number))
                except ResourceExhausted as refused:
                    assert refused.code == "disk-full"
                    return number
            raise AssertionError("the disk never filled")

        kept = asyncio.run(fill())
        assert len(journal.load().agents) == kept
        journal.close()
    finally:
        subprocess.run(["umount", disk], check=True)


WRITER = """
import asyncio, sys
sys.path[:0] = {paths!r}
from pathlib import Path
from aos.kernel.journal import SqliteJournal
from aos.kernel.process.machine import Machine
from aos.kernel.process.records import Program
program = Program("it:1", "sha256:0", "it", "1.0.0", ("x",), "", {{}})
async def go():
    journal, machine = SqliteJournal(Path({path!r})), Machine()
    for number in range(100000):
        id = f"{{number:012x}}"
        await journal.append(machine.run(id, f"n{{number}}", program, restart="never", remove=False, at=1.0).events)
        print(id, flush=True)
asyncio.run(go())
"""


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    code = WRITER.format(path=str(path), paths=[entry for entry in sys.path if entry])
    writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    acknowledged = [writer.stdout.readline().strip() for _ in range(150)]
    os.kill(writer.pid, signal.SIGKILL)
    acknowledged += writer.stdout.read().split("\n")[:-1]
    writer.wait()
    writer.stdout.close()
    journal = SqliteJournal(path)
    assert set(acknowledged) <= set(journal.load().agents)
    journal.close()
