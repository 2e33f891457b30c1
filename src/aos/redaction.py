"""Secrets in what is written by those who have them."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Redaction"]

_SHORTEST_LINE = 6
"""Characters that a line of a secret must have to be redacted for itself: '}' and 'EOF' are no secrets."""
_SHORTEST_ENCODED = 9
"""Bytes that a secret must have so that its base64 is looked for: twelve characters are no accident."""
_STARS = b"***"


class Redaction:
    """Replaces secrets by `***` in lines of output.

    Covered: a secret as it is, each of its lines when it has several, and its base64 in one line. Not covered: other
    encodings, or what a step takes apart itself.
    """

    def __init__(self, values: Iterable[bytes]) -> None:
        words: set[bytes] = set()
        for value in values:
            whole = value.strip()
            lines = [line.strip() for line in whole.split(b"\n")]
            if len(lines) == 1:
                words.update(lines)
            words.update(line for line in lines if len(line) >= _SHORTEST_LINE)
            if len(whole) >= _SHORTEST_ENCODED:
                even = whole[: len(whole) // 3 * 3]  # what follows depends on a newline at the end
                words.update((base64.b64encode(even), base64.urlsafe_b64encode(even)))
        words.discard(b"")
        self.longest = max(map(len, words), default=0)
        """Bytes: who cuts a line in two keeps as many together."""
        alternatives = sorted(map(re.escape, words), key=lambda word: (-len(word), word))
        self._pattern = re.compile(b"|".join(alternatives)) if words else None

    def __call__(self, line: bytes) -> bytes:
        return self._pattern.sub(_STARS, line) if self._pattern else line
