"""What is refused of a specification before anything is made: what the kernel or a runtime would refuse later, with less
to say; and what it would let pass, to the harm of isolation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from aos.content.tree import resolve
from aos.errors import AosError, FailedPrecondition, InvalidArgument
from aos.runtime.checks import check_limits, check_mounts, check_process

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from pathlib import Path

    from aos.content.tree import Tree
    from aos.runtime.spec import AgentSpec, Mount

__all__ = ["bad_image", "check_image", "check_spec", "resolved_mounts", "resolved_target"]

_RESERVED = ("proc", "sys")
"""The sandbox's own view of itself: what is mounted there, or below, could lie to it or to a runtime."""


def check_spec(spec: AgentSpec) -> None:
    """What the kernel would refuse with less to say."""
    check_process(spec.process)
    check_limits(spec.limits)
    if not spec.rootfs.layers:
        raise InvalidArgument("the root file system has no layer", code="spec-invalid")
    check_mounts(spec.mounts)


def resolved_mounts(spec: AgentSpec, tree: Tree) -> tuple[Mount, ...]:
    """The mounts, with links in their targets followed inside the root file system, so that no runtime follows them in
    its own way; InvalidArgument `mount-target-reserved`. What is below another mount is not the root file system's."""
    targets: list[str] = []
    for mount in spec.mounts:
        targets.append(resolved_target(tree, mount.target, covered=targets))
    return tuple(replace(mount, target=target) for mount, target in zip(spec.mounts, targets, strict=True))


def resolved_target(tree: Tree, target: str, covered: Sequence[str] = ()) -> str:
    """Where links lead that are not in one of the `covered` directories."""
    try:
        place = resolve(_Uncovered(tree, covered), target, follow_last=True)
    except AosError as error:
        raise InvalidArgument(
            f"{target!r} is not a place to mount at: {error.message}", code="spec-invalid"
        ) from error
    top = place.partition("/")[0]
    if top in _RESERVED or place in ("", "dev", "dev/pts"):
        through = "" if place == target.strip("/") else f" (it leads to /{place})"
        raise InvalidArgument(
            f"nothing can be mounted at {target!r}{through}: it is the sandbox's own",
            code="mount-target-reserved",
            hint="mount it elsewhere; /dev/shm and single files below /dev are free to use",
            target=target,
        )
    return f"/{place}"


@dataclass(frozen=True, slots=True)
class _Uncovered:
    """A tree without what the covered directories hold."""

    tree: Tree
    covered: Sequence[str]

    @property
    def confined(self) -> bool:
        return self.tree.confined

    def lstat(self, path: str) -> os.stat_result | None:
        below = any(path.startswith(f"{directory[1:]}/") for directory in self.covered)
        return None if below else self.tree.lstat(path)

    def readlink(self, path: str) -> str:
        return self.tree.readlink(path)


def check_image(image: Path) -> None:
    if not image.is_dir():
        raise bad_image(image, "there is no such directory")


def bad_image(image: Path, why: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"nothing can be restored from {image}: {why}",
        code="checkpoint-invalid",
        hint="the image must be whole, of the same version of the runtime, and of a sandbox with the same root and mounts",
        image=str(image),
    )
