"""Ranges of user and group ids, one for each sandbox: no two sandboxes of a host share one, whose installation ever.

A claim is a symbolic link in one directory of the host, named after the range's first id, to the sandbox that has it:
made at once or not at all, and worth nothing any more when the sandbox is gone. So a range needs no giving back, and
`kill -9` between any two lines loses none; what it leaves is swept when somebody finds that it has left something.

Where ranges come from: the configuration, else the lines of `root` in /etc/subuid and /etc/subgid, else 2^31 - 2^28 to
2^31, which nobody else hands out (systemd's "Users, Groups, UIDs and GIDs on systemd Systems": containers of
systemd-nspawn end below it).
"""

from __future__ import annotations

import fcntl
import os
import zlib
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aos.content.protocol import IdMap
from aos.errors import InvalidArgument, ResourceExhausted

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["IdRanges", "parse_range"]

_COUNT = 65536
"""Ids of one sandbox: what a distribution's users need, `nobody` included."""
_DEFAULT = ((1 << 31) - (1 << 28), 1 << 28)
_CLAIMS = Path("/var/lib/aos-ids")


@dataclass(frozen=True, slots=True)
class IdRanges:
    pool: tuple[int, int]
    """(first id, how many)."""
    claims: Path = _CLAIMS

    @classmethod
    def of_host(cls, configured: str, *, etc: Path = Path("/etc")) -> IdRanges:
        if configured:
            return cls(parse_range(configured))
        users, groups = (_range_of_root(etc / name) for name in ("subuid", "subgid"))
        return cls(users if users is not None and users == groups else _DEFAULT)

    def __len__(self) -> int:
        return self.pool[1] // _COUNT

    def claim(self, owner: Path) -> IdMap:
        """A range for the sandbox whose directory, which exists, is `owner`. ResourceExhausted `ids-exhausted`."""
        self.claims.mkdir(mode=0o755, parents=True, exist_ok=True)
        for first in self._firsts(owner):
            link = self.claims / str(first)
            try:
                link.symlink_to(owner)
            except FileExistsError:
                if not self._take_over(link, owner):
                    continue
            return self.map_from(first)
        raise ResourceExhausted(
            f"all {len(self)} id ranges of this host are in use",
            code="ids-exhausted",
            hint='give it more with [isolation] ids = "FIRST:COUNT", or run with --userns host',
        )

    @staticmethod
    def map_from(first: int) -> IdMap:
        extents = ((0, first, _COUNT),)
        return IdMap(extents, extents)

    def release(self, first: int, owner: Path) -> None:
        """Leave the range to others, a little earlier than when the next one finds out."""
        self._drop(self.claims / str(first), owner)

    def sweep(self, owners: Path) -> None:
        """Leave to others what sandboxes had whose directories were in `owners` and are gone."""
        for link in self.claims.glob("[0-9]*"):
            with suppress(OSError):
                owner = link.readlink()
                if owner.parent == owners and not owner.exists():
                    self._drop(link, owner)

    def _drop(self, link: Path, owner: Path) -> None:
        with suppress(OSError), self._locked():  # another has it by now, or it is not ours to change
            if link.readlink() == owner:
                link.unlink()

    def _firsts(self, owner: Path) -> Iterator[int]:
        """From another one on for each owner, so that the first is likely to be free, however many are not."""
        first, ranges = self.pool[0], len(self)
        begin = zlib.crc32(os.fsencode(owner))
        return (first + (begin + number) % ranges * _COUNT for number in range(ranges))

    def _take_over(self, link: Path, owner: Path) -> bool:
        """Whether the sandbox that had it is gone, and it is ours now."""
        if link.exists():
            return False
        with self._locked():
            if link.exists():
                return False
            link.unlink(missing_ok=True)
            try:
                link.symlink_to(owner)
            except FileExistsError:
                return False
            return True

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone among those that take a range from somebody who has not given it back."""
        with (self.claims / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def parse_range(text: str) -> tuple[int, int]:
    """`FIRST:COUNT`; InvalidArgument `config-invalid`."""
    first, _, count = text.partition(":")
    if not (first.isdecimal() and count.isdecimal()):
        raise _wrong(text, "FIRST:COUNT, such as 1879048192:268435456")
    found = int(first), int(count)
    if found[1] < _COUNT or found[0] < _COUNT or sum(found) > 1 << 32:
        raise _wrong(text, f"at least {_COUNT} ids, none below {_COUNT}")
    return found


def _wrong(text: str, wanted: str) -> InvalidArgument:
    return InvalidArgument(
        f"[isolation] ids: {text!r:.60} is not a range of ids", code="config-invalid", hint=wanted
    )


def _range_of_root(file: Path) -> tuple[int, int] | None:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, rest = line.partition(":")
        if name in ("root", "0"):
            try:
                return parse_range(rest)
            except InvalidArgument:
                return None
    return None
