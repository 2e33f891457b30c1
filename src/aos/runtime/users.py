"""Which numbers a user name means inside an image, from the image's own /etc/passwd and /etc/group.

The grammar is that of the OCI image config: `user`, `uid`, `user:group`, `uid:gid`, `uid:group`, `user:gid`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aos.content.tree import resolve
from aos.errors import InvalidArgument

if TYPE_CHECKING:
    from aos.content.tree import Tree

__all__ = ["User", "resolve_user"]

_FILE_LIMIT = 1 << 20  # bytes; a hostile image does not fill the daemon's memory
_ID_LIMIT = 2**32 - 1


@dataclass(frozen=True, slots=True)
class User:
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()


def resolve_user(text: str, tree: Tree) -> User:
    """InvalidArgument (`user-unknown`) when the image does not know a name. Numbers need not be known."""
    if text in ("", "0", "0:0"):
        return User()
    name, _, group = text.partition(":")
    passwd = _entries(tree, "etc/passwd", 4)
    uid = _number(name)
    found = next((e for e in passwd if e[0] == name or (uid is not None and e[2] == str(uid))), None)
    if uid is None:
        if found is None:
            known = ", ".join(entry[0] for entry in passwd[:20])
            raise InvalidArgument(
                f"the image has no user {name!r}",
                code="user-unknown",
                hint=f"it knows: {known}" if known else "it has no /etc/passwd: use a number",
                user=text,
            )
        uid = int(found[2])
    groups = _entries(tree, "etc/group", 3)
    if not group:
        member = (int(e[2]) for e in groups if found and len(e) > 3 and found[0] in e[3].split(","))
        return User(uid, int(found[3]) if found else 0, tuple(member))
    gid = _number(group)
    if gid is None:
        gid = next((int(entry[2]) for entry in groups if entry[0] == group), None)
    if gid is None:
        raise InvalidArgument(
            f"the image has no group {group!r}", code="user-unknown", hint="use a number", user=text
        )
    return User(uid, gid)


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() and text.isascii() and int(text) < _ID_LIMIT else None


def _entries(tree: Tree, path: str, fields: int) -> list[list[str]]:
    try:
        descriptor = tree.open(resolve(tree, path, follow_last=True))
    except OSError:
        return []
    with os.fdopen(descriptor, "rb") as file:
        lines = file.read(_FILE_LIMIT).decode(errors="replace").splitlines()
    entries = [line.split(":") for line in lines]
    return [
        entry
        for entry in entries
        if len(entry) >= fields
        and _number(entry[2]) is not None
        and (fields < 4 or _number(entry[3]) is not None)
    ]
