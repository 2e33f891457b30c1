"""The `WWW-Authenticate` header, parsed (RFC 9110, section 11.3); no I/O lives here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Challenge", "parse_challenges"]

_LIMIT = 8192
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SPACE = re.compile(r"[ \t]*")
_SEPARATORS = re.compile(r"[ \t,]*")
_PARAMETER = re.compile(rf'({_TOKEN})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))')
_SCHEME = re.compile(rf"({_TOKEN})(?:[ \t]+|$|(?=,))")
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*[ \t]*(?=,|$)")


@dataclass(frozen=True, slots=True)
class Challenge:
    scheme: str
    """Lower case: `basic`, `bearer`."""
    parameters: Mapping[str, str]
    """Names in lower case, values unquoted."""


def parse_challenges(header: str) -> list[Challenge]:
    """The challenges of one header value, as many as can be understood from its beginning."""
    text = header[:_LIMIT]
    challenges: list[Challenge] = []
    at = _skip(_SEPARATORS, text, 0)
    while at < len(text):
        scheme = _SCHEME.match(text, at)
        if scheme is None:
            break
        at = scheme.end()
        parameters: dict[str, str] = {}
        token68 = _TOKEN68.match(text, at)
        if token68 is not None:
            at = token68.end()
        while token68 is None:
            next_one = _PARAMETER.match(text, _skip(_SEPARATORS if parameters else _SPACE, text, at))
            if next_one is None:
                break
            value = re.sub(r"\\(.)", r"\1", next_one[2]) if next_one[2] is not None else next_one[3]
            parameters.setdefault(next_one[1].lower(), value)
            at = next_one.end()
        challenges.append(Challenge(scheme[1].lower(), parameters))
        after = _skip(_SEPARATORS, text, at)
        if after == at:
            break
        at = after
    return challenges


def _skip(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else at
