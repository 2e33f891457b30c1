"""Content digests, as in the OCI image specification ("descriptor.md#digests")."""

from __future__ import annotations

import hashlib
import re
from typing import NewType

from aos.errors import InvalidArgument

__all__ = ["Digest", "digest_of", "parse_digest"]

Digest = NewType("Digest", str)
"""`sha256:<64 lower-case hex>`. The only algorithm AOS writes and accepts."""

_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")


def parse_digest(text: str) -> Digest:
    """Accept exactly `sha256:<64 hex>`; raise InvalidArgument (`digest-invalid`) otherwise."""
    if not _SHA256.fullmatch(text):
        raise InvalidArgument(
            f"{text!r} is not a digest",
            code="digest-invalid",
            hint="a digest is 'sha256:' and 64 lower-case hexadecimal digits",
            digest=text,
        )
    return Digest(text)


def digest_of(data: bytes) -> Digest:
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())
