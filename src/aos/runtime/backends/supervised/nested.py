"""What is mounted inside of something else that is mounted, where others may change what is on the way."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aos.runtime.backends.supervised.native import (
    attach,
    clone_tree,
    open_canonical,
    open_inside,
    restrict,
)

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Nested", "open_source"]


@dataclass(frozen=True, slots=True)
class Nested:
    """What is at `source` also at `path` below `holder`; both are mounted."""

    source: Path
    holder: Path
    path: str
    read_only: bool
    made_in: Path | None
    """A directory of the host, in which a directory or file to mount at is made when there is none; None: nowhere."""
    made_at: str
    """Its path in there."""
    follow: bool
    """Whether links that lead to `made_in` are followed."""

    def mount(self) -> None:
        """Raise OSError; ELOOP where a link is on the way."""
        with ExitStack() as at_the_end:

            def keep(descriptor: int) -> int:
                at_the_end.callback(os.close, descriptor)
                return descriptor

            if self.made_in is not None:
                directory = keep(open_source(self.made_in, follow=self.follow))
                _make(directory, self.made_at, is_directory=self.source.is_dir())
            place = keep(open_inside(keep(open_source(self.holder)), self.path))
            tree = keep(clone_tree(keep(open_source(self.source))))
            restrict(tree, read_only=self.read_only)
            attach(tree, place)


def open_source(path: Path, *, follow: bool = True) -> int:
    """An O_PATH descriptor; without `follow`, ELOOP where a link is in the path."""
    return os.open(path, os.O_PATH | os.O_CLOEXEC) if follow else open_canonical(path)


def _make(directory: int, path: str, *, is_directory: bool) -> None:
    """Make what is missing of a path below an open directory, its last name a directory or an empty file."""
    names = path.split("/")
    for number, name in enumerate(names):
        above = "/".join(names[:number]) or "."
        try:
            os.close(open_inside(directory, f"{above}/{name}"))
        except FileNotFoundError:
            parent = open_inside(directory, above)
            try:
                if is_directory or number + 1 < len(names):
                    os.mkdir(name, dir_fd=parent)
                else:
                    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                    os.close(os.open(name, flags, 0o644, dir_fd=parent))
            except FileExistsError:
                pass  # by whoever may write there: what it is, the mount will see
            finally:
                os.close(parent)
