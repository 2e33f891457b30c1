"""What is refused of a specification before anything is made: what the kernel or a runtime would refuse later, with less
to say; and what it would let pass, to the harm of isolation."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from aos.content.tree import resolve
from aos.errors import AosError, FailedPrecondition, InvalidArgument
from aos.runtime.checks import check_limits, check_mounts, check_process

if TYPE_CHECKING:
    from pathlib import Path

    from aos.content.tree import Tree
    from aos.runtime.spec import AgentSpec, Mount

__all__ = ["bad_image", "check_image", "check_spec", "resolved_mounts"]

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
    its own way; InvalidArgument `mount-target-reserved`."""
    mounts = []
    for mount in spec.mounts:
        try:
            place = resolve(tree, mount.target, follow_last=True)
        except AosError as error:
            raise InvalidArgument(
                f"{mount.target!r} is not a place to mount at: {error.message}", code="spec-invalid"
            ) from error
        top = place.partition("/")[0]
        if top in _RESERVED or place in ("", "dev", "dev/pts"):
            through = "" if place == mount.target.strip("/") else f" (it leads to /{place})"
            raise InvalidArgument(
                f"nothing can be mounted at {mount.target!r}{through}: it is the sandbox's own",
                code="mount-target-reserved",
                hint="mount it elsewhere; /dev/shm and single files below /dev are free to use",
                target=mount.target,
            )
        mounts.append(replace(mount, target=f"/{place}"))
    return tuple(mounts)


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
