"""What an Agentfile says of an agent's life: `restart`, `stopGracePeriod`, `health`, `readiness`, `hooks`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aos.agentfile.definition import HOOK_EVENTS, Hook, Hooks, HttpProbe, Probe, RestartLimit
from aos.agentfile.nodes import MappingNode, ScalarNode, SequenceNode
from aos.agentfile.quantities import parse_duration

if TYPE_CHECKING:
    from aos.agentfile.nodes import Node
    from aos.agentfile.walk import Fields, Walk

__all__ = ["read_grace", "read_hooks", "read_probe", "read_restart"]

_POLICIES = ("never", "on-failure", "always", "unless-stopped")
_IN_SANDBOX = ("postCreate", "preStart", "postStart", "preStop")
"""When there is a sandbox that a command can run in."""
_MAY_FAIL = ("preCreate", "postCreate", "preStart", "postStart")
"""When there is still something that a failure can prevent."""
_KINDS = ("exec", "http", "tcp")
_TIMING = ("interval", "timeout", "retries", "startPeriod")
_LONGEST = 86_400.0
"""Seconds: a day."""


def read_restart(walk: Walk, node: Node) -> tuple[str, RestartLimit | None]:
    """`POLICY`, or `{policy, limit?: {restarts, within}}`."""
    if not isinstance(node, MappingNode):
        return _policy(walk, node, "restart"), None
    fields = walk.mapping(node, "restart", ("policy", "limit"), ("policy",)) or {}
    policy = _policy(walk, fields["policy"], "restart.policy") if "policy" in fields else "never"
    limit = None
    if "limit" in fields:
        names = ("restarts", "within")
        inner = walk.mapping(fields["limit"], "restart.limit", names, names) or {}
        if len(inner) == len(names):
            restarts = walk.integer(inner["restarts"], "restart.limit.restarts", least=1)
            within = _duration(walk, inner["within"], "restart.limit.within", least=0.001)
            limit = RestartLimit(restarts or 1, within)
    return policy, limit


def _policy(walk: Walk, node: Node, what: str) -> str:
    text = walk.string(node, what)
    if text is None:
        return "never"
    name, colon, number = text.partition(":")
    counted = number.isascii() and number.isdecimal() and number[0] != "0" and len(number) <= 6
    if name in _POLICIES and (not colon or (name == "on-failure" and counted)):
        return text
    hint = f"choose from: {', '.join(_POLICIES)}; or on-failure:5 for at most 5 restarts"
    walk.note(node, f"{what} cannot be {text!r:.60}", hint=hint)
    return "never"


def read_grace(walk: Walk, node: Node) -> float | None:
    return _duration(walk, node, "stopGracePeriod")


def read_probe(walk: Walk, node: Node, what: str) -> Probe | None:
    """`{exec|http|tcp, interval?, timeout?, retries?, startPeriod?, onFailure?}`; the last for `health` alone."""
    known = (*_KINDS, *_TIMING, *(("onFailure",) if what == "health" else ()))
    fields = walk.mapping(node, what, known)
    if fields is None:
        return None
    kinds = [name for name in _KINDS if name in fields]
    if len(kinds) != 1:
        walk.note(node, f"{what} must ask in exactly one way", hint="exec, http or tcp")
        return None
    found: dict[str, Any] = {}
    match kinds[0]:
        case "exec":
            found["exec"] = _command(walk, fields["exec"], f"{what}.exec")
        case "http":
            found["http"] = _http(walk, fields["http"], f"{what}.http")
        case "tcp":
            found["tcp"] = _tcp(walk, fields["tcp"], f"{what}.tcp")
    for name, least in (("interval", 0.1), ("timeout", 0.1), ("startPeriod", 0.0)):
        if name in fields:
            key = "start_period" if name == "startPeriod" else name
            found[key] = _duration(walk, fields[name], f"{what}.{name}", least=least)
    if "retries" in fields:
        found["retries"] = walk.integer(fields["retries"], f"{what}.retries", least=1) or 1
    if "onFailure" in fields:
        choice = walk.choice(fields["onFailure"], f"{what}.onFailure", ("restart", "none"))
        found["on_failure"] = choice or "restart"
    return Probe(**found)


def _http(walk: Walk, node: Node, what: str) -> HttpProbe | None:
    fields = walk.mapping(node, what, ("port", "path"), ("port",)) or {}
    if "port" not in fields:
        return None
    path = walk.string(fields["path"], f"{what}.path") if "path" in fields else "/"
    if path is not None and (not path.startswith("/") or any(not "!" <= c <= "~" for c in path)):
        walk.note(fields["path"], f"{what}.path must begin with '/' and be ASCII without blanks")
    return HttpProbe(_port(walk, fields["port"], f"{what}.port"), path or "/")


def _tcp(walk: Walk, node: Node, what: str) -> int:
    if isinstance(node, ScalarNode):
        return _port(walk, node, what)
    fields = walk.mapping(node, what, ("port",), ("port",)) or {}
    return _port(walk, fields["port"], f"{what}.port") if "port" in fields else 1


def _port(walk: Walk, node: Node, what: str) -> int:
    port = walk.integer(node, what, least=1)
    if port is not None and port > 65_535:
        walk.note(node, f"{what} must be a port, at most 65535")
    return port or 1


def read_hooks(walk: Walk, node: Node) -> Hooks:
    """`{EVENT: {exec, where?, user?, timeout?, onFailure?}}`, or a list of them for an event."""
    events = {_camel(name): name for name in HOOK_EVENTS}
    fields = walk.mapping(node, "hooks", tuple(events)) or {}
    found: dict[str, Any] = {}
    for event, value in fields.items():
        items = value.value if isinstance(value, SequenceNode) else [value]
        read = [_hook(walk, item, event) for item in items]
        found[events[event]] = tuple(hook for hook in read if hook is not None)
    return Hooks(**found)


def _hook(walk: Walk, node: Node, event: str) -> Hook | None:
    what = f"hooks.{event}"
    fields = walk.mapping(node, what, ("exec", "where", "user", "timeout", "onFailure"), ("exec",))
    if fields is None or "exec" not in fields:
        return None
    place = (
        walk.choice(fields["where"], f"{what}.where", ("sandbox", "host")) if "where" in fields else "sandbox"
    )
    if place == "sandbox" and event not in _IN_SANDBOX:
        walk.note(
            fields.get("where", node),
            f"{what} cannot run in the sandbox: there is none at that time",
            hint=f"say `where: host`, or choose from {', '.join(_IN_SANDBOX)}",
        )
    found: dict[str, Any] = {}
    if "timeout" in fields:
        found["timeout"] = _duration(walk, fields["timeout"], f"{what}.timeout", least=0.1)
    return Hook(
        exec=_command(walk, fields["exec"], f"{what}.exec"),
        where=place or "sandbox",
        user=_user(walk, fields, what, place),
        on_failure=_on_failure(walk, fields, what, event),
        **found,
    )


def _user(walk: Walk, fields: Fields, what: str, place: str | None) -> str:
    if "user" not in fields:
        return ""
    if place == "host":
        walk.note(fields["user"], f"{what}.user is for hooks in the sandbox")
    return walk.string(fields["user"], f"{what}.user", empty=False) or ""


def _on_failure(walk: Walk, fields: Fields, what: str, event: str) -> str:
    default = "fail" if event in _MAY_FAIL else "ignore"
    if "onFailure" not in fields:
        return default
    choice = walk.choice(fields["onFailure"], f"{what}.onFailure", ("fail", "ignore"))
    if choice == "fail" and event not in _MAY_FAIL:
        walk.note(
            fields["onFailure"],
            f"{what} cannot fail: nothing is left that it could prevent",
            hint=f"onFailure: fail is for {', '.join(_MAY_FAIL)}",
        )
    return choice or default


def _command(walk: Walk, node: Node, what: str) -> tuple[str, ...]:
    """A line for /bin/sh -c, or a program and its arguments."""
    if isinstance(node, ScalarNode):
        text = walk.string(node, what, empty=False)
        return ("/bin/sh", "-c", text or "")
    return walk.strings(node, what, empty=False, blank=True)


def _duration(walk: Walk, node: Node, what: str, *, least: float = 0.0) -> float:
    seconds = walk.amount(node, what, parse_duration)
    if seconds is not None and not least <= seconds <= _LONGEST:
        walk.note(node, f"{what} must be at least {least:g} s and at most a day")
    return seconds or least


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
