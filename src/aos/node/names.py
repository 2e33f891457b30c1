"""Made-up names for agents that were given none."""

from __future__ import annotations

__all__ = ["made_up"]

_ADJECTIVES = [
    "amber",
    "brisk",
    "calm",
    "deft",
    "eager",
    "fair",
    "glad",
    "keen",
    "lucid",
    "mild",
    "neat",
    "proud",
    "quick",
    "sage",
    "tidy",
    "vivid",
]
_NOUNS = [
    "ant",
    "bee",
    "crane",
    "dove",
    "eel",
    "fox",
    "gull",
    "hare",
    "ibis",
    "jay",
    "kite",
    "lark",
    "mole",
    "newt",
    "owl",
    "seal",
]


def made_up(id: str) -> str:
    """A name somebody can say; the end of the id makes it this agent's."""
    number = int(id[:4], 16)
    return f"{_ADJECTIVES[number % 16]}-{_NOUNS[number // 16 % 16]}-{id[-4:]}"
