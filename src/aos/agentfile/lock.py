"""`Agentfile.lock`: exactly what an Agentfile's names meant when `aos lock` looked. Its format; nothing is resolved here.

YAML of one canonical form, so that the same lock is the same bytes and a change is a line:

    lock: 1
    agent: hello
    platform: linux/amd64
    bases:
    - busybox:1 sha256:…
    steps:
    - stage: ""
      install: pip
      asks:
      - "rich>=13"
      pins:
      - rich 13.9.4 rich-13.9.4-py3-none-any.whl sha256:…

A step is known by its stage and what it asks for, not by its place: steps may be added and moved around it.
"""

from __future__ import annotations

import json
import os
import re
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aos.agentfile.document import SIZE_LIMIT, Document
from aos.agentfile.pins import DebianPackage, PythonFile
from aos.agentfile.problems import AgentfileError
from aos.agentfile.walk import Walk
from aos.errors import FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from aos.agentfile.nodes import Node

__all__ = ["Lock", "LockedStep", "load_lock", "read_lock", "save_lock"]

_VERSION = 1
_HEAD = """\
# What the names in the Agentfile stand for. Written by `aos lock`, honoured by `aos build`: keep it under version control.
# `aos lock --upgrade NAME` takes a newer NAME, `aos lock --upgrade` takes everything newer.
"""
_BASE = re.compile(r"(\S+) (sha256:[0-9a-f]{64})")
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_~!/@=-]*([ :][A-Za-z0-9.+_~!/@=-]+)+")
_WORD = re.compile(r"[a-z][a-z0-9_-]*(/[a-z0-9]+)*")
_NOT_STRINGS = frozenset({"null", "true", "false", "y", "yes", "n", "no", "on", "off"})
_KINDS = ("install", "plugin")
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO would be waited for


@dataclass(frozen=True, slots=True)
class LockedStep:
    stage: str
    kind: str
    """`install pip`, `install apt`, `plugin NAME`."""
    asks: tuple[str, ...]
    """What the Agentfile asked for, a line each."""
    pins: tuple[str, ...]
    """What it gets: lines of `pins.py`."""
    location: str = field(default="", compare=False)
    """`file:line` in the lock."""


@dataclass(frozen=True, slots=True)
class Lock:
    agent: str
    """`metadata.name` of the Agentfile."""
    platform: str
    bases: tuple[tuple[str, str], ...] = ()
    """References as the Agentfile writes them, and the digests of their manifests; sorted."""
    steps: tuple[LockedStep, ...] = ()
    """In the order of the plan."""
    file: str = field(default="Agentfile.lock", compare=False)

    def to_text(self) -> str:
        lines = [f"lock: {_VERSION}", f"agent: {_scalar(self.agent)}", f"platform: {_scalar(self.platform)}"]
        lines += _list("bases", [_scalar(f"{name} {digest}") for name, digest in sorted(self.bases)])
        steps = ["\n  ".join(_step_lines(step)) for step in self.steps]
        return _HEAD + "\n".join([*lines, *_list("steps", steps)]) + "\n"


def save_lock(lock: Lock, path: Path) -> None:
    """Write it whole and rename. Raise what the operating system says."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(lock.to_text(), encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_lock(path: Path) -> Lock | None:
    """The lock in a file; None where there is none. Raise InvalidArgument (`lock-invalid`), FailedPrecondition."""
    try:
        with os.fdopen(os.open(path, _READ), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise _unreadable(path, "it is no regular file")
            data = file.read(SIZE_LIMIT + 1)
    except FileNotFoundError as error:
        if path.is_symlink():  # whoever wrote it wants a lock: to build without one is not for us to decide
            raise _unreadable(path, "it is a link to nowhere") from error
        return None
    except OSError as error:
        raise _unreadable(path, error.strerror) from error
    return read_lock(data, str(path))


def _unreadable(path: Path, why: str | None) -> InvalidArgument:
    return InvalidArgument(f"{path}: cannot read the lock: {why}", code="lock-invalid", path=str(path))


def read_lock(data: bytes, file: str = "Agentfile.lock") -> Lock:
    """Raise InvalidArgument (`lock-invalid`: each problem with its place), FailedPrecondition (`lock-version`)."""
    try:
        walk = Walk()
        lock = _lock(walk, Document.read(file, data).root, file)
        walk.finish()
    except AgentfileError as error:
        raise InvalidArgument(
            "the lock is damaged:\n" + "\n".join(problem.render() for problem in error.problems),
            code="lock-invalid",
            hint="take it from version control again, or remove it and run `aos lock`",
            path=file,
        ) from error
    return lock


def _lock(walk: Walk, root: Node, file: str) -> Lock:
    names = ("lock", "agent", "platform", "bases", "steps")
    fields = walk.mapping(root, "a lock", None, ("lock",)) or {}
    version = walk.integer(fields["lock"], "lock", least=1) if "lock" in fields else None
    if version is not None and version != _VERSION:
        raise FailedPrecondition(
            f"{file} has the format {version}; this version of aos reads {_VERSION}",
            code="lock-version",
            hint="use the version of aos that wrote it, or write it anew: remove it and run `aos lock`",
            path=file,
        )
    fields = walk.mapping(root, "a lock", names, names) or {}
    walk.finish()
    bases = []
    for node in walk.items(fields["bases"], "bases"):
        text = walk.string(node, "a base") or ""
        if match := _BASE.fullmatch(text):
            bases.append((match[1], match[2]))
        else:
            walk.note(node, "a base is a reference and a digest, sha256:…", code="lock-invalid")
    return Lock(
        walk.string(fields["agent"], "agent") or "",
        walk.string(fields["platform"], "platform") or "",
        tuple(bases),
        tuple(_step(walk, node) for node in walk.items(fields["steps"], "steps")),
        file,
    )


def _step(walk: Walk, node: Node) -> LockedStep:
    fields = walk.mapping(node, "a step", ("stage", *_KINDS, "asks", "pins"), ("stage", "asks", "pins")) or {}
    kinds = [name for name in _KINDS if name in fields]
    if len(kinds) != 1:
        walk.note(node, "a step of a lock is an `install` or a `plugin`", code="lock-invalid")
    walk.finish()
    kind = f"{kinds[0]} {walk.string(fields[kinds[0]], kinds[0])}"
    asks = walk.strings(fields["asks"], "asks", blank=True)
    pins = []
    for item in walk.items(fields["pins"], "pins"):
        line = walk.string(item, "a pin", empty=False) or ""
        try:
            pins.append(_canonical(kind, line))
        except ValueError as error:
            walk.note(item, str(error), code="lock-invalid")
    location = node.document.place(node).rpartition(":")[0]
    return LockedStep(walk.string(fields["stage"], "stage") or "", kind, asks, tuple(pins), location)


def _canonical(kind: str, line: str) -> str:
    match kind:
        case "install pip":
            return PythonFile.parse(line).to_line()
        case "install apt":
            return DebianPackage.parse(line).to_line()
        case _:
            return line


def _step_lines(step: LockedStep) -> list[str]:
    kind, _, what = step.kind.partition(" ")
    asks, pins = _list("asks", map(_quoted, step.asks)), _list("pins", map(_scalar, step.pins))
    return [f"stage: {_scalar(step.stage)}", f"{kind}: {_scalar(what)}", *asks, *pins]


def _list(name: str, items: Iterable[str]) -> list[str]:
    lines = [f"- {item}" for item in items]
    return [f"{name}:", *lines] if lines else [f"{name}: []"]


def _scalar(text: str) -> str:
    """Unquoted where no reader of YAML could take it for anything but this string."""
    plain = _PLAIN.fullmatch(text) or (_WORD.fullmatch(text) and text not in _NOT_STRINGS)
    return text if plain else _quoted(text)


def _quoted(text: str) -> str:
    single = '"' in text and "'" not in text and text.isprintable()
    return f"'{text}'" if single else json.dumps(text, ensure_ascii=False)
