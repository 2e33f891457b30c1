"""The journal: the node's durable event log, what the kernel has acknowledged.

Raw SQLite with a write-ahead log, synchronous=FULL, one writer thread that commits everything waiting in one
transaction (group commit): an acknowledged event survives kill -9 and power failure. State is the newest snapshot
plus the events after it. A torn last transaction is SQLite's to undo; a damaged file is refused and never
overwritten.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import msgspec

from aos.errors import AosError, DataLoss, Internal, ResourceExhausted, Unavailable
from aos.kernel.process.events import Event, ProcessExited
from aos.kernel.process.fold import State, replay

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from aos.kernel.process.records import ExitRecord

__all__ = ["SNAPSHOT_EVERY", "Entry", "Journal", "JournalInfo", "MemoryJournal", "SqliteJournal"]

SNAPSHOT_EVERY = 1000
"""Events between two snapshots: a start replays at most these."""
_FORMAT = 1
_encode = msgspec.json.Encoder().encode
_decode_event = msgspec.json.Decoder(Event).decode
_decode_state = msgspec.json.Decoder(State).decode


@dataclass(frozen=True, slots=True)
class Entry:
    cursor: int
    """Counts up from 1; gaps are possible, repetition is not."""
    event: Event


@dataclass(frozen=True, slots=True)
class JournalInfo:
    events: int
    bytes: int


class Journal(Protocol):
    """`append` returns once its events are durable; batches of concurrent callers share one commit."""

    def load(self) -> State:
        """The state after all events. DataLoss `journal-damaged`, Unavailable for a newer format."""
        ...

    async def append(self, events: Sequence[Event]) -> int:
        """The last event's cursor. ResourceExhausted `disk-full`: none of them was kept."""
        ...

    def read(self, after: int, limit: int) -> list[Entry]:
        """Events behind this cursor, oldest first."""
        ...

    def events_of(self, agent: str) -> list[Event]:
        """All events of one agent, oldest first, also of one that was removed."""
        ...

    def last_exit(self, agent: str) -> ExitRecord | None:
        """How the last process of an agent ended, also of one that was removed."""
        ...

    def cursor(self) -> int:
        """Of the newest event; 0 when there is none."""
        ...

    def info(self) -> JournalInfo: ...

    def close(self) -> None: ...


class MemoryJournal:
    """A declared product part: for simulation, and for tests of what stands on a journal."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []

    def load(self) -> State:
        return replay(entry.event for entry in self._entries)

    async def append(self, events: Sequence[Event]) -> int:
        for event in events:
            # Encoded and decoded, so that nothing passes here that would not pass there.
            self._entries.append(Entry(len(self._entries) + 1, _decode_event(_encode(event))))
        return len(self._entries)

    def read(self, after: int, limit: int) -> list[Entry]:
        return self._entries[after : after + limit]

    def events_of(self, agent: str) -> list[Event]:
        return [entry.event for entry in self._entries if entry.event.agent == agent]

    def last_exit(self, agent: str) -> ExitRecord | None:
        return _last_exit(entry.event for entry in reversed(self._entries) if entry.event.agent == agent)

    def cursor(self) -> int:
        return len(self._entries)

    def info(self) -> JournalInfo:
        return JournalInfo(len(self._entries), 0)

    def close(self) -> None:
        pass


@dataclass(slots=True)
class _Batch:
    events: list[Event]
    done: asyncio.Future[int]
    loop: asyncio.AbstractEventLoop


class SqliteJournal:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._since_snapshot = 0
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            if not path.exists():
                if path.with_name(f"{path.name}-wal").exists():
                    raise self._damaged("its -wal file is there, it is not")
                _create(path)
            elif path.stat().st_size == 0:
                raise self._damaged("it is empty")
            self._writer_db, self._reader_db = _connect(path), _connect(path)
            self._check()
        except (sqlite3.Error, OSError) as error:
            raise self._explained(error) from error
        self._thread = threading.Thread(target=self._write_all, name="journal", daemon=True)
        self._thread.start()

    def _check(self) -> None:
        db = self._writer_db
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > _FORMAT:
            raise Unavailable(
                f"{self._path} was written by a newer aos (format {version}; this one reads {_FORMAT})",
                code="journal-newer",
                hint="install that version again",
            )
        if version != _FORMAT:
            raise self._damaged(f"its format is {version}")
        (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise self._damaged(verdict)

    def load(self) -> State:
        try:
            state, after = self._snapshot()
            events = [entry.event for entry in self._rows(after, -1)]
            self._since_snapshot = len(events)
            return replay(events, state)
        except (sqlite3.Error, msgspec.MsgspecError, KeyError) as error:
            raise self._damaged(str(error) or type(error).__name__) from error

    def _snapshot(self) -> tuple[State, int]:
        row = self._reader_db.execute(
            "SELECT cursor, state FROM snapshots ORDER BY cursor DESC LIMIT 1"
        ).fetchone()
        return _of_snapshot(row)

    async def append(self, events: Sequence[Event]) -> int:
        loop = asyncio.get_running_loop()
        batch = _Batch(list(events), loop.create_future(), loop)
        self._waiting.put(batch)
        return await asyncio.shield(batch.done)

    def read(self, after: int, limit: int) -> list[Entry]:
        try:
            return self._rows(after, limit)
        except (sqlite3.Error, msgspec.MsgspecError) as error:
            raise self._damaged(str(error)) from error

    def _rows(self, after: int, limit: int) -> list[Entry]:
        rows = self._reader_db.execute(
            "SELECT cursor, event FROM events WHERE cursor > ? ORDER BY cursor LIMIT ?", (after, limit)
        )
        return [Entry(cursor, _decode_event(event)) for cursor, event in rows]

    def events_of(self, agent: str) -> list[Event]:
        rows = self._reader_db.execute("SELECT event FROM events WHERE agent = ? ORDER BY cursor", (agent,))
        return [_decode_event(event) for (event,) in rows]

    def last_exit(self, agent: str) -> ExitRecord | None:
        rows = self._reader_db.execute(
            "SELECT event FROM events WHERE agent = ? ORDER BY cursor DESC", (agent,)
        )
        return _last_exit(_decode_event(event) for (event,) in rows)

    def cursor(self) -> int:
        (newest,) = self._reader_db.execute("SELECT coalesce(max(cursor), 0) FROM events").fetchone()
        return int(newest)

    def info(self) -> JournalInfo:
        (count,) = self._reader_db.execute("SELECT count(*) FROM events").fetchone()
        files = (self._path, self._path.with_name(self._path.name + "-wal"))
        return JournalInfo(count, sum(file.stat().st_size for file in files if file.exists()))

    def close(self) -> None:
        """Everything appended before is durable."""
        self._waiting.put(None)
        self._thread.join()
        self._reader_db.close()
        self._writer_db.close()

    def _write_all(self) -> None:
        while (first := self._waiting.get()) is not None:
            batches, last = [first], False
            while not self._waiting.empty():
                following = self._waiting.get()
                if following is None:
                    last = True
                    break
                batches.append(following)
            self._write(batches)
            if last:
                return

    def _write(self, batches: list[_Batch]) -> None:
        """All of them in one transaction, or none."""
        db = self._writer_db
        cursors: list[int] = []
        try:
            db.execute("BEGIN IMMEDIATE")
            cursor = 0
            for batch in batches:
                for event in batch.events:
                    cursor = (
                        db.execute(
                            "INSERT INTO events (at, agent, event) VALUES (?, ?, ?)",
                            (event.at, event.agent, _encode(event)),
                        ).lastrowid
                        or 0
                    )
                cursors.append(cursor)
            db.execute("COMMIT")
        except sqlite3.Error as error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            refused = self._explained(error)
            for batch in batches:
                _answer(batch, None, refused)
            return
        for batch, cursor in zip(batches, cursors, strict=True):
            _answer(batch, cursor, None)
        self._since_snapshot += sum(len(batch.events) for batch in batches)
        if self._since_snapshot >= SNAPSHOT_EVERY:
            self._take_snapshot()

    def _take_snapshot(self) -> None:
        """Folded from the journal itself, so that it cannot hold what is not durable. Two are kept."""
        db = self._writer_db
        row = db.execute("SELECT cursor, state FROM snapshots ORDER BY cursor DESC LIMIT 1").fetchone()
        state, after = _of_snapshot(row)
        rows = db.execute(
            "SELECT cursor, event FROM events WHERE cursor > ? ORDER BY cursor", (after,)
        ).fetchall()
        if not rows:
            return
        state = replay((_decode_event(event) for _, event in rows), state)
        try:
            db.execute("INSERT OR REPLACE INTO snapshots VALUES (?, ?)", (rows[-1][0], _encode(state)))
            db.execute(
                "DELETE FROM snapshots WHERE cursor NOT IN (SELECT cursor FROM snapshots ORDER BY cursor DESC LIMIT 2)"
            )
        except sqlite3.Error:
            return  # a snapshot only saves time; the next one is tried again
        self._since_snapshot = 0

    def _explained(self, error: Exception) -> AosError:
        text = str(error)
        if "full" in text or "disk I/O" in text:
            return ResourceExhausted(
                f"{self._path}: cannot write the journal: {text}",
                code="disk-full",
                hint="free space on this disk; nothing that was acknowledged is lost",
                path=str(self._path),
            )
        if isinstance(error, sqlite3.DatabaseError) and ("malformed" in text or "not a database" in text):
            return self._damaged(text)
        return Internal(f"{self._path}: {text}", code="journal-failed", path=str(self._path))

    def _damaged(self, why: str) -> DataLoss:
        return DataLoss(
            f"{self._path}: the journal is damaged: {why}",
            code="journal-damaged",
            hint=f"it was not touched. Restore it from a backup, or give it up: move it and {self._path.name}-wal away. "
            f"The node then starts without agents, and removes the sandboxes it does not know",
            path=str(self._path),
        )


def _of_snapshot(row: tuple[int, bytes] | None) -> tuple[State, int]:
    """A snapshot only saves time: the state of another version, whose shape is not ours, is passed over."""
    if row is not None:
        with contextlib.suppress(msgspec.ValidationError):
            return _decode_state(row[1]), row[0]
    return State(), 0


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    return connection


def _create(path: Path) -> None:
    """A new journal: there whole, or not at all; so one that is empty has been emptied."""
    new = path.with_name(f".{path.name}.new")
    for name in (new.name, f"{new.name}-wal", f"{new.name}-shm"):  # of a start that was killed
        path.with_name(name).unlink(missing_ok=True)
    os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    db = _connect(new)
    db.execute("BEGIN IMMEDIATE")
    db.execute(
        "CREATE TABLE events (cursor INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL,"
        " agent TEXT NOT NULL, event BLOB NOT NULL)"
    )
    db.execute("CREATE INDEX events_of_agent ON events (agent, cursor)")
    db.execute("CREATE TABLE snapshots (cursor INTEGER PRIMARY KEY, state BLOB NOT NULL)")
    db.execute(f"PRAGMA user_version={_FORMAT}")
    db.execute("COMMIT")
    db.close()  # moves all of the write-ahead log into the file, and syncs it
    new.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _last_exit(newest_first: Iterable[Event]) -> ExitRecord | None:
    return next((event.exit for event in newest_first if isinstance(event, ProcessExited)), None)


def _answer(batch: _Batch, cursor: int | None, error: AosError | None) -> None:
    def finish() -> None:
        if batch.done.done():
            return
        if error is not None:
            batch.done.set_exception(error)
        else:
            batch.done.set_result(cursor or 0)

    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        batch.loop.call_soon_threadsafe(finish)
