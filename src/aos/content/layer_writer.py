"""Write one layer: the bytes of a tar go in; digest, compression and storage overlap with reading more of them.

    caller       fills pieces: headers, and files read straight into them
    digest       sha256 of the tar, the layer's diff_id
    compress     gzip, zstd or nothing
    store        sha256 of the blob, and its file

Each but the first is a thread; what they do runs without the interpreter's lock. A few pieces wait between two of
them, so memory is bounded whatever the layer's size.

Every piece but the last has exactly PIECE bytes: isal's output depends on how its input is cut, so that a rule for
the cuts is part of what makes a blob's bytes follow from the tar's (decision 0011).
"""

from __future__ import annotations

import hashlib
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from aos.content.compression import PIECE, compressor, media_type_for
from aos.content.worker import Worker
from aos.oci.digest import Digest
from aos.oci.layer import Layer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aos.content.compression import Compression
    from aos.content.protocol import Blobs, BlobWriter

__all__ = ["LayerWriter", "layer_writer"]

_ZEROS = bytes(PIECE)


@contextmanager
def layer_writer(blobs: Blobs, compression: Compression) -> Iterator[LayerWriter]:
    """A writer that leaves nothing behind unless it was committed."""
    with blobs.writer() as blob:
        writer = LayerWriter(blob, compression)
        try:
            yield writer
        finally:
            writer.end()


class LayerWriter:
    def __init__(self, blob: BlobWriter, compression: Compression) -> None:
        self._blob = blob
        self._compression = compression
        self._compressor = compressor(compression)
        self._hash = hashlib.sha256()
        self._piece = bytearray(PIECE)
        self._filled = 0
        self._digest: Worker[bytes | bytearray] = Worker(self._hash.update)
        self._store: Worker[bytes] = Worker(blob.write)
        self._compress: Worker[bytes | bytearray] = Worker(self._squeeze)

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            taken = min(len(view), PIECE - self._filled)
            self._piece[self._filled : self._filled + taken] = view[:taken]
            self._advance(taken)
            view = view[taken:]

    def zeros(self, count: int) -> None:
        """Write as many zero bytes; nearly as good as free when they are many."""
        while count:
            if not self._filled and count >= PIECE:
                self._give(_ZEROS)
                count -= PIECE
            else:  # a piece is made of zeros
                taken = min(count, PIECE - self._filled)
                self._advance(taken)
                count -= taken

    def copy(self, descriptor: int, count: int) -> int:
        """Write the next `count` bytes of a file; return how many it did not have."""
        while count:
            end = min(PIECE, self._filled + count)
            with memoryview(self._piece) as view, view[self._filled : end] as room:
                taken = os.readv(descriptor, [room])
            if not taken:
                break
            count -= taken
            self._advance(taken)
        return count

    def commit(self) -> Layer:
        """Finish, and publish the blob."""
        self._give(self._piece[: self._filled])
        self._digest.finish()
        self._compress.finish()
        self._store.put(self._compressor.flush())
        self._store.finish()
        info = self._blob.commit()
        diff_id = Digest("sha256:" + self._hash.hexdigest())
        return Layer(info.digest, diff_id, info.size, media_type_for(self._compression))

    def end(self) -> None:
        """Wait for the threads to end, committed or not."""
        for worker in (self._digest, self._compress, self._store):
            worker.end()

    def _advance(self, count: int) -> None:
        self._filled += count
        if self._filled == PIECE:
            self._give(self._piece)
            self._piece, self._filled = bytearray(PIECE), 0

    def _give(self, piece: bytes | bytearray) -> None:
        """Pass a piece on; from now on nobody writes to it."""
        self._digest.put(piece)
        self._compress.put(piece)

    def _squeeze(self, piece: bytes | bytearray) -> None:
        if compressed := self._compressor.compress(piece):
            self._store.put(compressed)
