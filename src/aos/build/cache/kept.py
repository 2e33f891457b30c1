"""Package files that builds keep: what a lock names lies in the content store, for the day a mirror has moved on.

A file is a blob, pinned under `OWNER` until `forget`; one pin holds all that one step names.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from typing import TYPE_CHECKING

from aos.agentfile.pins import digests_of
from aos.errors import DataLoss, NotFound
from aos.oci.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from aos.content.store import ContentStore

__all__ = ["OWNER", "Kept"]

OWNER = "build-packages"
_CHUNK = 1 << 20


class Kept:
    def __init__(self, content: ContentStore, hold: Callable[[Digest], None] = lambda digest: None) -> None:
        """`hold` keeps a digest from collection as long as the build lasts (a lease)."""
        self._content = content
        self._hold = hold

    def keep(self, file: Path, expected: str = "") -> str:
        """Store a file; its digest. Raise DataLoss (`digest-mismatch`) unless it is the expected one."""
        with file.open("rb") as stream, self._content.blobs.writer() as writer:
            while chunk := stream.read(_CHUNK):
                writer.write(chunk)
            return writer.commit(Digest(expected) if expected else None).digest

    def pin(self, lines: Iterable[str]) -> None:
        """Keep the files that these pins name from collection, until `forget`."""
        digests = sorted(set(digests_of(lines)))
        if digests:
            name = hashlib.sha256("\n".join(digests).encode()).hexdigest()
            self._content.pins.set(OWNER, name, map(Digest, digests))

    def lend(self, digest: str, target: Path) -> None:
        """Place a kept file at `target`, which must only be read: it may be the store's own.

        Ask `missing` first, which reads it. Raise FileNotFoundError when it has gone meanwhile."""
        path = self._content.blobs.path(Digest(digest))
        try:
            os.link(path, target)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK):
                raise
            shutil.copyfile(path, target)

    def missing(self, digests: Iterable[str]) -> list[str]:
        """Those that are not here; what is here is read, so that damage counts as missing."""
        return [digest for digest in digests if not self._is_whole(digest)]

    def _is_whole(self, digest: str) -> bool:
        self._hold(Digest(digest))  # before it is looked for: see leases.py
        try:
            with self._content.blobs.open(Digest(digest)) as stream:
                while stream.read(_CHUNK):
                    pass
        except NotFound:
            return False
        except DataLoss:
            self._content.blobs.delete(Digest(digest))
            return False
        return True

    def pins(self) -> Iterator[tuple[str, int, float]]:
        """What is kept together: the name of the pin, the bytes of its files, and when a build used it last."""
        for pin in self._content.pins.list():
            if pin.owner == OWNER:
                sizes = [
                    self._content.blobs.stat(blob).size
                    for blob in pin.digests
                    if self._content.blobs.exists(blob)
                ]
                yield pin.name, sum(sizes), self._content.pins.date(pin.owner, pin.name)

    def forget(self, name: str) -> None:
        """Let go of what is kept together; the next collection takes what nothing else holds."""
        self._content.pins.remove(OWNER, name)
