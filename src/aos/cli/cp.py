"""`aos cp`: files from this host into a running agent, and back. The data goes from one to the other directly."""

from __future__ import annotations

import os
import stat
import sys
import threading
from typing import TYPE_CHECKING

from aos.cli import _node
from aos.cli._options import Option, Verb
from aos.cli._places import BENEATH, INSIDE, Place, split
from aos.cli._values import count
from aos.errors import AosError, FailedPrecondition, InvalidArgument, NotFound
from aos.rootless.user import in_user_namespace

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO

    from aos.cli._options import Arguments

__all__ = ["VERB", "main"]

VERB = Verb(
    "Copy files between this host and a running agent: AGENT:PATH is a path of the agent, '-' a tar stream. "
    "SOURCE/. copies what is in a directory",
    "SOURCE TARGET",
    options=(
        Option("archive", "a", help="Keep owners and set-user-ID (default: the target's own owner)"),
        Option("follow-link", "L", help="When SOURCE is a link, copy what it leads to"),
        Option("replica", "", "NUMBER", "This replica (default: the first that runs)"),
    ),
)


def main(args: Arguments) -> int:
    source, target = _parse(args["source"]), _parse(args["target"])
    if (source[0] is None) is (target[0] is None):
        raise InvalidArgument(
            "one of SOURCE and TARGET must be of an agent, the other of this host",
            code="usage",
            hint="such as aos cp notes:/data/notes.txt .",
        )
    agent = source[0] or target[0]
    call: dict[str, object] = {"agent": agent}
    if args["replica"] is not None:
        call["replica"] = count(args["replica"], "--replica") - 1
    with _node.connect() as node:
        _, descriptors = node.call_with_descriptors("agent.root", **call)
    root = Place(descriptors[0], INSIDE)
    try:
        root.first_id = _first_id(root)
        if source[0] is not None:
            _out(root, source[1], target[1], args)
        else:
            _in(root, source[1], target[1], args)
    finally:
        root.close()
    return 0


def _first_id(root: Place) -> int:
    """From the map of its user namespace (user_namespaces(7)), as the kernel shows it to us: where that is ours, by the
    ids of the namespace around it."""
    if in_user_namespace():
        return 0
    try:
        with os.fdopen(root.open("/proc/1/uid_map", os.O_RDONLY), "rb") as file:
            return int(file.readline().split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def _parse(text: str) -> tuple[str | None, str]:
    """(agent, path), or (None, path of this host): a path that begins with '/' or '.' is never an agent's."""
    agent, colon, path = text.partition(":")
    if not colon or text.startswith(("/", ".")) or "/" in agent:
        return None, text
    if not agent or not path:
        raise InvalidArgument(f"{text!r} names no path of an agent", code="usage", hint="AGENT:/PATH")
    return agent, path


def _out(root: Place, source: str, target: str, args: Arguments) -> None:
    """From an agent to this host."""
    name = _check_source(root, source, args)
    if target == "-":
        from aos.cli._tar import pack

        if os.isatty(1):
            raise FailedPrecondition(
                "standard output is a terminal",
                code="cp-target-invalid",
                hint="send it to a file or a pipe",
            )
        pack(root, source, name, sys.stdout.buffer, follow=args["follow-link"])
        return
    host = Place(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), 0)
    try:
        base, rename = _aim(root, source, host, _absolute(target) + "/" * target.endswith("/"), name, args)
        beneath = Place(host.open(base, os.O_PATH | os.O_DIRECTORY), BENEATH)
    finally:
        host.close()
    owner = None if args["archive"] else (os.geteuid(), os.getegid())
    try:
        _carry(root, source, name, beneath, "", rename, owner, args)
    finally:
        beneath.close()


def _in(root: Place, source: str, target: str, args: Arguments) -> None:
    """From this host to an agent."""
    root.become_its_root()
    above = root.look("/")
    owner = None if args["archive"] or above is None else (above.st_uid, above.st_gid)
    if source == "-":
        from aos.cli._tar import unpack

        if not root.is_directory(target):
            raise NotFound(
                f"the agent has no directory {target}",
                code="cp-target-invalid",
                hint="a tar stream is unpacked into a directory that exists",
            )
        unpack(sys.stdin.buffer, root, target, rename=None, owner=owner, set_id=args["archive"])
        return
    host = Place(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), 0)
    try:
        path = _absolute(source) + ("/." if source.endswith("/.") or source == "." else "")
        name = _check_source(host, path, args)
        base, rename = _aim(host, path, root, target, name, args)
        _carry(host, path, name, root, base, rename, owner, args)
    finally:
        host.close()


def _check_source(place: Place, source: str, args: Arguments) -> str:
    """The name that it has in the stream. NotFound `cp-source-missing`."""
    found = place.look(source, follow=args["follow-link"] or source.endswith("/"))
    if found is None:
        raise NotFound(f"there is no {source}", code="cp-source-missing", hint="check the path")
    name = split(source)[1]
    return "content" if name in ("", ".", "..") else name


def _aim(source: Place, path: str, target: Place, aim: str, name: str, args: Arguments) -> tuple[str, str]:
    """Docker's rules: the directory that it goes into, and the name it gets there; "" for what is in a directory."""
    found = source.look(path, follow=args["follow-link"] or path.endswith(("/", "/.")))
    is_directory = found is not None and stat.S_ISDIR(found.st_mode)
    there = target.look(aim.rstrip("/") or "/")
    if there is not None and stat.S_ISDIR(there.st_mode):
        contents = is_directory and (path.endswith("/.") or name == "content")
        return aim, "" if contents else name
    if there is not None:
        if is_directory or aim.endswith("/"):
            raise FailedPrecondition(
                f"{aim} is not a directory", code="cp-target-invalid", hint="name another target"
            )
    elif aim.endswith("/") and not is_directory:
        raise NotFound(f"there is no directory {aim}", code="cp-target-invalid", hint="make it first")
    parent, new = split(aim)
    if not target.is_directory(parent or "/"):
        raise NotFound(f"there is no directory {parent}", code="cp-target-invalid", hint="make it first")
    return parent or "/", new


def _carry(
    source: Place,
    path: str,
    name: str,
    target: Place,
    base: str,
    rename: str,
    owner: tuple[int, int] | None,
    args: Arguments,
) -> None:
    """Pack in a thread, unpack here, a pipe between."""
    from aos.cli._tar import pack, unpack

    reading, writing = os.pipe2(os.O_CLOEXEC)
    follow = args["follow-link"] or path.endswith(("/", "/."))
    failed: list[AosError | OSError] = []

    def produce() -> None:
        with os.fdopen(writing, "wb") as out:
            _unless_broken(lambda: pack(source, path, name, out, follow=follow), failed)

    with os.fdopen(reading, "rb") as stream:
        thread = threading.Thread(target=produce, name="pack")
        thread.start()
        try:
            unpack(stream, target, base, rename=rename, owner=owner, set_id=args["archive"])
        except (AosError, OSError):
            if not failed:
                raise
        finally:
            _drop(stream)
            thread.join()
    if failed:
        raise failed[0]


def _unless_broken(work: Callable[[], None], failed: list[AosError | OSError]) -> None:
    try:
        work()
    except BrokenPipeError:
        pass  # the other side has failed, and says why
    except (AosError, OSError) as error:
        failed.append(error)


def _drop(stream: IO[bytes]) -> None:
    """Close our end, so that who writes is not held up."""
    stream.close()


def _absolute(path: str) -> str:
    """Without what a link would give another meaning: `..` stays."""
    return path if path.startswith("/") else f"{os.getcwd()}/{path}"  # noqa: PTH109
