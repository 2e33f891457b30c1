"""The composition root: the one place that names which implementation stands behind each protocol.

Every function imports what it composes when it is called, so that a verb pays only for what it uses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aos.config import Config
    from aos.content.store import ContentStore

__all__ = ["content_store"]


def content_store(config: Config) -> ContentStore:
    from aos.content.store import ContentStore

    return ContentStore(config.root / "content")
