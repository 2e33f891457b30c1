"""Agent and exit records in words."""

from __future__ import annotations

from aos.cli._output import ago, duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["death", "package", "status"]

_CAUSES = {
    "oom": "Out of memory",
    "limit": "Over a limit",
    "policy": "Ended by policy",
    "lost": "Lost",
    "health": "Unhealthy",
}


def status(record: dict[str, Any], now: float) -> str:
    """`Up 3 minutes (healthy)`, `Up 3 minutes 2/3 (unhealthy)`, `Exited (0) 2 minutes ago`, `Restarting (1) 5 seconds
    ago`."""
    state = record["status"]
    if state in ("running", "paused"):
        up = f"Up {duration(now - record['started_at'])}" if record.get("started_at") else "Up"
        if record.get("replicas", 1) > 1:
            up += f" {record['running']}/{record['replicas']}"
        notes = [
            "paused" if state == "paused" else "",
            str(record.get("health") or ""),
            "not ready" if record.get("ready") is False else "",
        ]
        said = ", ".join(filter(None, notes))
        return f"{up} ({said})" if said else up
    last = record.get("exit")
    if last is None or state not in ("exited", "restarting"):
        return str(state).capitalize()
    word = "Restarting" if state == "restarting" else _CAUSES.get(last["cause"], "Exited")
    code = "" if last["cause"] == "lost" else f" ({last['shell_code']})"
    at = last.get("finished_at") or record.get("finished_at")
    said = f"{word}{code} {ago(now - at)}" if at else f"{word}{code}"
    return f"{said}, gave up" if state == "exited" and record.get("gave_up") else said


def death(last: dict[str, Any]) -> str:
    """Say an end that the exit code alone would not explain; empty for an ordinary one."""
    cause = last["cause"]
    if cause in ("exited", "signaled"):
        return ""
    words = {
        "oom": "the agent ran out of memory",
        "limit": "the agent went over a limit",
        "policy": "the agent was ended by policy",
        "lost": "nobody knows how the agent ended",
        "health": "the agent was unhealthy",
    }.get(cause, f"the agent ended: {cause}")
    return f"{words}: {last['detail']}" if last.get("detail") else words


def package(record: dict[str, Any]) -> str:
    """The reference an agent was started from, or its digest, shortened."""
    facts = record.get("package") or {}
    text = str(facts.get("reference") or facts.get("digest") or "-")
    algorithm, colon, digits = text.partition(":")
    return digits[:12] if colon and algorithm == "sha256" else text
