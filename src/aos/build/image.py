"""The image config of a package: its base's, overridden by what the definition says."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from aos.agentfile.definition import Network
from aos.oci.image import ImageSpec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aos.agentfile.definition import Definition

__all__ = ["image_config"]

_OURS = "aos.openos.dev/"


def image_config(definition: Definition, base: ImageSpec | None, *, platform: str, epoch: int) -> ImageSpec:
    """`base` is None on `scratch`. A base's entrypoint and arguments hold together, or not at all."""
    config, entrypoint = definition.config, definition.entrypoint
    image = ImageSpec(platform.partition("/")[2]) if base is None else base
    labels = {name: text for name, text in image.labels.items() if not name.startswith(_OURS)}
    image = replace(
        image,
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch)),
        env=_merge(image.env, config.env),
        working_dir=config.work_dir or image.working_dir,
        user=config.user or image.user,
        labels={**labels, **dict(definition.metadata.labels)},
    )
    if entrypoint.command:
        image = replace(image, entrypoint=entrypoint.command, cmd=entrypoint.args)
    elif entrypoint.args:
        image = replace(image, cmd=entrypoint.args)
    further = dict(config.image)
    stop_signal = further.pop("StopSignal", "")
    if stop_signal:
        image = replace(image, stop_signal=stop_signal)
    other = {**image.other_config, **further}
    if isinstance(definition.network, Network) and definition.network.ports:
        listens: dict[str, object] = {_exposed(port): {} for port in definition.network.ports}
        other["ExposedPorts"] = {**(image.other_config.get("ExposedPorts") or {}), **listens}
    return replace(image, other_config=other)


def _exposed(port: str) -> str:
    """As the OCI image configuration has it."""
    return port if "/" in port else f"{port}/tcp"


def _merge(inherited: Iterable[str], own: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """`KEY=value` in order; a later value takes the place of an earlier one of the same name."""
    values = {text.partition("=")[0]: text for text in inherited}
    values |= {name: f"{name}={value}" for name, value in own}
    return tuple(values.values())
