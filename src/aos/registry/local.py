"""The local registry: one index file that says which digest each reference stands for on this host.

Writers hold a lock on a file beside the index and replace it by rename, so that readers need no lock and see
either the old or the new index. The index before the last change stays beside it as `index.json.previous`.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import fcntl
import json
import os
import re
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from aos.clock import SystemClock
from aos.errors import (
    DataLoss,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
)
from aos.oci.digest import parse_digest
from aos.oci.reference import Reference, parse_reference
from aos.registry.protocol import Entry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from aos.clock import Clock
    from aos.content.store import ContentStore
    from aos.oci.digest import Digest

__all__ = ["LocalRegistry"]

_FORMAT = 1
_PREFIX = re.compile(r"(?:sha256:)?([0-9a-f]{4,64})")


class LocalRegistry:
    """The names of one installation, in `root/index.json`."""

    def __init__(self, root: Path, content: ContentStore, *, clock: Clock | None = None) -> None:
        self._root = root
        self._file = root / "index.json"
        self._content = content
        self._clock = clock or SystemClock()
        self._seen: tuple[int, ...] = ()
        self._entries: dict[str, Entry] = {}

    def tag(
        self, reference: Reference | str, digest: Digest, *, name: str = "", version: str = "", size: int = 0
    ) -> Entry:
        key = str(_parsed(reference))
        entry = Entry(key, digest, name, version, size, self._clock.now())
        known = self._read().get(key)
        if known is not None and replace(known, created_at=entry.created_at) == entry:
            return known
        with self._changing() as entries:
            entries[key] = entry
        return entry

    def resolve(self, reference: Reference | str) -> Digest:
        matches = self._find(reference, self._read())
        if matches:
            return matches[0].digest
        text = str(reference)
        if text.startswith("sha256:") and len(text) == 71:
            digest = parse_digest(text)
            if self._content.blobs.exists(digest):
                return digest
        raise self._not_found(reference)

    def list(self) -> Sequence[Entry]:
        return [entry for _, entry in sorted(self._read().items())]

    def remove(self, reference: Reference | str) -> Sequence[Entry]:
        with self._changing() as entries:
            removed = self._find(reference, entries)
            if not removed:
                raise self._not_found(reference)
            for entry in removed:
                del entries[entry.reference]
        return removed

    def _find(self, reference: Reference | str, entries: Mapping[str, Entry]) -> Sequence[Entry]:
        """All entries that a reference, a digest or a prefix of one means; they share one digest."""
        text = str(reference)
        found: Sequence[Entry] = ()
        if not text.startswith("sha256:"):
            wanted = _parsed(reference)
            exact = entries.get(str(wanted))
            if exact is not None:
                return [exact]
            if wanted.digest:
                found = [
                    entry
                    for entry in entries.values()
                    if entry.digest == wanted.digest and parse_reference(entry.reference).name == wanted.name
                ]
        prefix = _PREFIX.fullmatch(text)
        if prefix is not None:
            start = "sha256:" + prefix[1]
            found = [entry for entry in entries.values() if entry.digest.startswith(start)]
        if len({entry.digest for entry in found}) > 1:
            raise InvalidArgument(
                f"{text!r} is the beginning of several digests",
                code="digest-ambiguous",
                hint="give more digits; it may be "
                + ", ".join(sorted(entry.reference for entry in found)[:5]),
                reference=text,
            )
        return found

    def _not_found(self, reference: Reference | str) -> NotFound:
        text = str(reference)
        near = _near(text, list(self._read()))
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        remote = "sha256:" not in text[:7] and "/" in text and any(c in text.split("/")[0] for c in ".:")
        hint += f"`aos pull {text}` fetches it" if remote else "`aos packages ls` lists what is here"
        return NotFound(
            f"no package {text!r} in the local registry", code="package-not-found", hint=hint, reference=text
        )

    def _read(self) -> dict[str, Entry]:
        """The entries; read again only when the file is another one than last time. Never to be changed."""
        try:
            status = self._file.stat()
        except FileNotFoundError:
            self._entries, self._seen = {}, ()
            return self._entries
        except OSError as error:
            raise _unreadable(self._file, error) from error
        seen = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
        if seen != self._seen:
            try:
                data = self._file.read_bytes()
            except OSError as error:
                raise _unreadable(self._file, error) from error
            self._entries, self._seen = _decode(data, self._file), seen
        return self._entries

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, Entry]]:
        """A copy of the entries that becomes the index when the block ends without an error."""
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self._root / "index.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unreadable(self._root, error) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            entries = dict(self._read())
            yield entries
            if entries != self._entries:
                self._write(entries)
        finally:
            os.close(lock)

    def _write(self, entries: Mapping[str, Entry]) -> None:
        """Replace the index durably; called with the lock held."""
        new, previous = self._file.with_suffix(".json.new"), self._file.with_suffix(".json.previous")
        try:
            with new.open("wb") as file:
                file.write(_encode(entries))
                file.flush()
                os.fsync(file.fileno())
            if self._file.exists():
                keep = self._file.with_suffix(".json.keep")
                keep.unlink(missing_ok=True)
                keep.hardlink_to(self._file)
                keep.replace(previous)
            new.replace(self._file)
            directory = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise _unreadable(self._file, error) from error


def _parsed(reference: Reference | str) -> Reference:
    return reference if isinstance(reference, Reference) else parse_reference(reference)


def _near(text: str, known: list[str]) -> list[str]:
    """Up to three known references that may have been meant, the likeliest first."""
    name = text.partition("@")[0].rpartition("/")[2].partition(":")[0]
    same = sorted(key for key in known if key.partition("@")[0].rpartition("/")[2].partition(":")[0] == name)
    close = difflib.get_close_matches(text, known, n=3, cutoff=0.6)
    short = {key.rpartition(":")[0]: key for key in sorted(known)}
    close += [short[match] for match in difflib.get_close_matches(text, list(short), n=3, cutoff=0.6)]
    return list(dict.fromkeys([*same, *close]))[:3]


def _encode(entries: Mapping[str, Entry]) -> bytes:
    facts = {
        key: {name: value for name, value in asdict(entry).items() if name != "reference"}
        for key, entry in entries.items()
    }
    return json.dumps({"version": _FORMAT, "entries": facts}, indent=1, sort_keys=True).encode() + b"\n"


def _decode(data: bytes, file: Path) -> dict[str, Entry]:
    try:
        raw: Any = json.loads(data)
        version = raw["version"]
        if isinstance(version, int) and version > _FORMAT:
            raise FailedPrecondition(
                f"{file}: written by a newer AOS (index version {version})",
                code="registry-index-newer",
                hint="upgrade AOS, or use another AOS_ROOT",
            )
        return {key: _entry(key, facts) for key, facts in raw["entries"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, InvalidArgument, RecursionError) as error:
        raise DataLoss(
            f"{file}: the index of the local registry is damaged: {error}",
            code="registry-index-damaged",
            hint=f"put the index before the last change back: mv {file}.previous {file}; or move {file} away and "
            "build, pull or tag again. No package content is lost; `aos prune` waits until this is repaired",
            path=str(file),
        ) from error


def _entry(key: str, facts: Mapping[str, Any]) -> Entry:
    entry = Entry(
        str(parse_reference(key)),
        parse_digest(facts["digest"]),
        facts["name"],
        facts["version"],
        facts["size"],
        facts["created_at"],
    )
    for name, kind in (("name", str), ("version", str), ("size", int), ("created_at", int | float)):
        if not isinstance(getattr(entry, name), kind):
            raise ValueError(f"{key}: '{name}' is not a {kind}")
    return entry


def _unreadable(path: Path, error: OSError) -> PermissionDenied | ResourceExhausted | FailedPrecondition:
    message = f"{path}: {error.strerror or error}"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return PermissionDenied(
            message,
            code="registry-unreadable",
            hint="use the account that owns it, or set AOS_ROOT to a folder of your own",
        )
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceExhausted(
            message, code="disk-full", hint="free space (`aos prune`), nothing was changed"
        )
    return FailedPrecondition(message, code="registry-unreadable")
