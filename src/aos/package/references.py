"""What blobs refer to, as garbage collection asks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from aos.errors import InvalidArgument, NotFound
from aos.oci.descriptor import Descriptor
from aos.oci.digest import parse_digest
from aos.package.documents import DOCUMENT_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from aos.oci.digest import Digest
    from aos.package.documents import BlobReader

__all__ = ["package_children", "package_diff_ids"]


def package_children(blobs: BlobReader) -> Callable[[Digest], Iterable[Digest]]:
    """Blobs behind a blob: of an index its manifests, of a manifest its config, layers and subject.

    Layers and other content refer to nothing, nor does a blob that is not there (an index names other
    platforms). One that is damaged raises DataLoss, so that nothing is collected on false premises.
    """

    def children(digest: Digest) -> Iterable[Digest]:
        raw = _document(blobs, digest)
        found: list[object] = [raw.get("config"), raw.get("subject")]
        for key in ("manifests", "layers"):
            found += raw[key] if isinstance(raw.get(key), list) else []
        return [child for item in found if (child := _digest_in(item)) is not None]

    return children


def package_diff_ids(blobs: BlobReader) -> Callable[[Iterable[Digest]], Iterator[Digest]]:
    """The unpacked layers behind blobs: those that image configs among them name."""

    def diff_ids(digests: Iterable[Digest]) -> Iterator[Digest]:
        for digest in digests:
            rootfs = _document(blobs, digest).get("rootfs")
            listed = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
            for text in listed if isinstance(listed, list) else []:
                try:
                    yield parse_digest(str(text))
                except InvalidArgument:
                    continue

    return diff_ids


def _document(blobs: BlobReader, digest: Digest) -> dict[str, Any]:
    """The JSON object behind a digest; empty for everything else."""
    try:
        if blobs.stat(digest).size > DOCUMENT_LIMIT:
            return {}
        with blobs.open(digest) as stream:
            if stream.read(1) != b"{":
                return {}
        raw = json.loads(blobs.read(digest))
    except (NotFound, ValueError, RecursionError):
        return {}
    return raw if isinstance(raw, dict) else {}


def _digest_in(item: object) -> Digest | None:
    try:
        return Descriptor.from_json(item).digest
    except InvalidArgument:
        return None
