"""Amounts as people write them: memory and CPUs in Kubernetes' notation, durations in Go's."""

from __future__ import annotations

import re

__all__ = ["parse_cpu", "parse_duration", "parse_memory"]

_UNITS = {"": 1, "k": 1000, "K": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4}
_UNITS |= {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}
_MEMORY = re.compile(r"([0-9]+(?:\.[0-9]+)?)([kKMGT]i?)?B?")
_CPU = re.compile(r"([0-9]+)m|([0-9]+(?:\.[0-9]+)?)")
_DIGITS = 18
MEMORY_LEAST = 4 << 20
"""Bytes; below this no process of an agent would start."""


def parse_memory(text: str) -> int:
    """Bytes of `512Mi`, `1G`, `1073741824`; ValueError says what is wrong."""
    match = _MEMORY.fullmatch(text)
    if not match or (match[2] or "") not in _UNITS:
        raise ValueError("an amount of memory, such as 512Mi, 1G or a number of bytes")
    if len(match[1]) > _DIGITS:
        raise ValueError("less than an exabyte of memory")
    amount = int(float(match[1]) * _UNITS[match[2] or ""])
    if amount < MEMORY_LEAST:
        raise ValueError(f"at least {MEMORY_LEAST >> 20}Mi of memory")
    return amount


def parse_cpu(text: str) -> float:
    """CPUs of `500m`, `1.5`, `2`; ValueError says what is wrong."""
    match = _CPU.fullmatch(text)
    if not match:
        raise ValueError("a number of CPUs, such as 1.5, 2 or 500m")
    if len(text) > _DIGITS:
        raise ValueError("a number of CPUs that a host can have")
    amount = int(match[1]) / 1000 if match[1] else float(match[2])
    if amount < 0.01:
        raise ValueError("at least 10m of a CPU")
    return amount


_PARTS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|h|m|s))+")
_PART = re.compile(r"([0-9.]+)(ms|h|m|s)")


def parse_duration(text: str) -> float:
    """Seconds of `30s`, `1m30s`, `500ms`, or a number of them; ValueError says what is wrong."""
    if len(text) <= _DIGITS:
        if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
            return float(text)
        if _DURATION.fullmatch(text):
            return sum(float(number) * _PARTS[unit] for number, unit in _PART.findall(text))
    raise ValueError("a duration, such as 30s, 1m30s, 500ms or a number of seconds")
