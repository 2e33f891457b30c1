"""JSON by the C functions behind the `json` package, whose own import takes 7 ms (it imports `re`).

The private module `_json` is the same in CPython 3.11 to 3.14; where it lacks something, `json` is used.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["decode", "encode"]

try:
    from _json import (
        encode_basestring,
        make_encoder,
        make_scanner,
    )
except ImportError:  # pragma: no cover - another interpreter
    import json

    def encode(value: object) -> str:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)

    def decode(text: str) -> Any:
        return json.loads(text)
else:

    class _Context:
        """What the C scanner asks of json.JSONDecoder."""

        strict = True
        object_hook = None
        object_pairs_hook = None
        parse_float = float
        parse_int = int
        parse_constant = float
        memo: dict[str, str]

    _scan = make_scanner(_Context())  # type: ignore[arg-type]

    def _refuse(value: object) -> object:
        raise TypeError(f"{type(value).__name__} is not JSON")

    _encoder = make_encoder(None, _refuse, encode_basestring, None, ":", ",", False, False, False)

    def encode(value: object) -> str:
        """On one line, without spaces."""
        return "".join(_encoder(value, 0))

    def decode(text: str) -> Any:
        """ValueError for anything that is not one JSON value, at once or after white space."""
        text = text.strip()
        try:
            value, end = _scan(text, 0)
        except StopIteration as error:
            raise ValueError(f"not JSON at character {error.value}") from None
        if end != len(text):
            raise ValueError(f"more than one JSON value, the second at character {end}")
        return value
