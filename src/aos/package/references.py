"""What blobs refer to, as garbage collection asks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from aos.errors import InvalidArgument, NotFound
from aos.oci.descriptor import Descriptor
from aos.package.documents import DOCUMENT_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aos.oci.digest import Digest
    from aos.package.documents import BlobReader

__all__ = ["package_children"]


def package_children(blobs: BlobReader) -> Callable[[Digest], Iterable[Digest]]:
    """Blobs behind a blob: of an index its manifests, of a manifest its config, layers and subject.

    Layers and other content refer to nothing, nor does a blob that is not there (an index names other
    platforms). One that is damaged raises DataLoss, so that nothing is collected on false premises.
    """

    def children(digest: Digest) -> Iterable[Digest]:
        try:
            if blobs.stat(digest).size > DOCUMENT_LIMIT:
                return ()
            with blobs.open(digest) as stream:
                if stream.read(1) != b"{":
                    return ()
            raw = json.loads(blobs.read(digest))
        except (NotFound, ValueError, RecursionError):
            return ()
        found: list[object] = [raw.get("config"), raw.get("subject")]
        for key in ("manifests", "layers"):
            found += raw[key] if isinstance(raw.get(key), list) else []
        return [child for item in found if (child := _digest_in(item)) is not None]

    return children


def _digest_in(item: object) -> Digest | None:
    try:
        return Descriptor.from_json(item).digest
    except InvalidArgument:
        return None
