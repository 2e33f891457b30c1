"""Where what is mounted in a sandbox waits for its runtime to take it, and what of it is put together before that.

A runtime follows links in a mount's target in its own way. In the image that is harmless: aos.runtime.checks has followed
them before, and nobody changes it. In a directory of the host it is not: whoever writes there (another agent, with the
same volume) could lead the next mount to /proc, at any moment until it is mounted. So what goes into another mount is
attached to that by us, by descriptor, with no link allowed on the way; the runtime takes both as one tree.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aos.runtime.backends.supervised.checks import resolved_target
from aos.runtime.backends.supervised.mounts import Bind, MemoryFile, Scratch
from aos.runtime.backends.supervised.nested import Nested

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aos.content.tree import Tree
    from aos.runtime.spec import Mount

__all__ = ["Staging"]


@dataclass(frozen=True, slots=True)
class _Staged:
    target: str
    top: str | None
    """Target of the tree that it is in, which may be its own; None: the runtime makes it, and it is empty."""
    made_in: Path | None
    """Where directories can be made for what is mounted in it."""
    follow: bool


class Staging:
    """Gathers the mounts of one sandbox, in their order."""

    def __init__(self, place: Path, *, owner: tuple[int, int], root: tuple[int, int]) -> None:
        """`place`: the directory that all is staged in; `owner`: the host's ids of whom files in memory belong to;
        `root`: those of the sandbox's root user."""
        self._place = place
        self._owner = owner
        self._root = root
        self._staged: list[_Staged] = []
        self.binds: list[Bind | Scratch] = []
        self.files: list[MemoryFile] = []
        self.nested: list[Nested] = []
        self.sources: dict[str, str] = {}
        """What is mounted at a path of the sandbox: where the runtime takes it from."""
        self.mounts: list[Mount] = []
        """Those that are left to the runtime."""

    def bind(self, target: str, source: Path, *, read_only: bool, mapped: bool = True) -> None:
        """A file or directory of ours at its place in the image."""
        place = self._next()
        self.binds.append(Bind(source, place, read_only, mapped=mapped))
        self.sources[target] = str(place)

    def add_files(self, files: Mapping[str, Path], image: Tree) -> tuple[str, ...]:
        """Files of ours for the image's own places, where nothing else is mounted and they exist; answers where links of
        the image lead to, that is, where the runtime mounts them. InvalidArgument `mount-target-reserved`."""
        targets = []
        for path, file in files.items():
            target = resolved_target(image, path)
            if target not in self.sources and path not in self.sources and file.exists():
                self.bind(target, file, read_only=True)
                targets.append(target)
        return tuple(targets)

    def add(self, mounts: Sequence[Mount], trees: Mapping[str, Path]) -> None:
        """`trees`: where what is wanted of other layers is, by target."""
        for mount in mounts:
            holder = next((it for it in reversed(self._staged) if _within(mount.target, it.target)), None)
            top = holder.top if holder is not None else None
            source = self._stage(mount, trees, scratch=top is not None)
            if holder is not None and top is not None and source is not None:
                inside, path = (mount.target[len(at) + 1 :] for at in (holder.target, top))
                read_only = mount.read_only or mount.kind in ("file", "layers")
                self.nested.append(
                    Nested(
                        source,
                        Path(self.sources[top]),
                        path,
                        read_only,
                        holder.made_in,
                        inside,
                        holder.follow,
                    )
                )
            else:
                self.mounts.append(mount)
                if source is not None:
                    top = mount.target
                    self.sources[mount.target] = str(source)
            made_in = {"bind": mount.source, "tmpfs": source}.get(mount.kind)
            self._staged.append(_Staged(mount.target, top, made_in, mount.follow))

    def _stage(self, mount: Mount, trees: Mapping[str, Path], *, scratch: bool) -> Path | None:
        """Where it is staged; None: the runtime makes it."""
        if mount.kind == "bind" and mount.source is not None:
            self.binds.append(Bind(mount.source, self._next(), mount.read_only, mount.follow))
            return self.binds[-1].target
        if mount.kind == "file":
            self.files.append(MemoryFile(mount.data, mount.mode, *self._owner))
            return self._place / "memory" / str(len(self.files) - 1)
        if mount.kind == "layers":
            return trees[mount.target]
        if not scratch:
            return None
        self.binds.append(Scratch(self._next(), mount.size, *self._root))
        return self.binds[-1].target

    def _next(self) -> Path:
        return self._place / "binds" / str(len(self.binds))


def _within(path: str, directory: str) -> bool:
    return path.startswith(f"{directory}/")
