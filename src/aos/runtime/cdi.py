"""Devices by the Container Device Interface: what the host's own files say that a device takes to be used.

Source: CNCF Container Device Interface specification 1.0.0 (SPEC.md): files in /etc/cdi and /var/run/cdi, the latter
before the former; names `vendor.com/class=device`. Hooks are programs of the host that run as its root: refused unless
the installation allows them.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aos.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied
from aos.runtime.spec import Mount

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aos.runtime.spec import AgentSpec

__all__ = ["CDI_DIRECTORIES", "Edits", "find_devices"]

CDI_DIRECTORIES = (Path("/etc/cdi"), Path("/var/run/cdi"))
"""Later ones win."""
_INSTALL = (
    "the vendor's toolkit writes them: for NVIDIA install nvidia-container-toolkit and run"
    " `nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`"
)


@dataclass(frozen=True, slots=True)
class Edits:
    """What devices change of a sandbox."""

    nodes: tuple[dict[str, Any], ...] = ()
    """As `linux.devices` of the OCI runtime specification, with `access` (`rwm` or less) beside it."""
    mounts: tuple[Mount, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    groups: tuple[int, ...] = ()
    hooks: tuple[dict[str, Any], ...] = ()
    """`{hookName, path, args?, env?, timeout?}`"""

    def on(self, spec: AgentSpec) -> AgentSpec:
        process = replace(spec.process, env=(*self.env, *spec.process.env))
        return replace(spec, process=process, mounts=(*spec.mounts, *self.mounts))

    def apply(self, config: dict[str, Any]) -> None:
        """What is the OCI runtime's to do."""
        linux = config["linux"]
        for node in self.nodes:
            device = {name: value for name, value in node.items() if name != "access"}
            linux.setdefault("devices", []).append(device)
            rule = {name: node[name] for name in ("type", "major", "minor", "access")}
            linux["resources"]["devices"].append({"allow": True, **rule})
        if self.groups:  # runsc tells an empty list from none when it compares with a checkpoint
            config["process"]["user"].setdefault("additionalGids", []).extend(self.groups)
        for hook in self.hooks:
            kept = {name: value for name, value in hook.items() if name != "hookName"}
            config.setdefault("hooks", {}).setdefault(hook["hookName"], []).append(kept)


def find_devices(
    names: Sequence[str], *, hooks: bool, directories: Iterable[Path] = CDI_DIRECTORIES
) -> Edits:
    """The edits for devices `vendor.com/class=name`; a number N stands for the first N of any class `gpu`.

    FailedPrecondition `devices-missing` where the host describes none, NotFound `device-unknown`, FailedPrecondition
    `cdi-invalid`, PermissionDenied `device-hook-refused` when one needs a hook and `hooks` says no.
    """
    known = _known(directories)
    wanted = [full for name in names for full in _resolve(name, known)]
    parts: list[dict[str, Any]] = []
    for full in dict.fromkeys(wanted):
        general, own = known[full]
        parts += [part for part in (general, own) if part and part not in parts]
    edits = Edits()
    for part in parts:
        edits = _add(edits, part)
    if edits.hooks and not hooks:
        raise PermissionDenied(
            f"{', '.join(names)} needs a program of the host to run as its root: {edits.hooks[0].get('path')}",
            code="device-hook-refused",
            hint="`allow_host_hooks = true` in the configuration allows it",
        )
    return edits


def _resolve(name: str, known: dict[str, Any]) -> list[str]:
    if not known:
        raise FailedPrecondition(
            f"there is no device {name}: the host describes none in {' and '.join(map(str, CDI_DIRECTORIES))}",
            code="devices-missing",
            hint=_INSTALL,
        )
    if name.isdecimal():
        found = [
            full for full in known if full.partition("=")[0].endswith("/gpu") and not full.endswith("=all")
        ]
        if len(found) < int(name):
            raise NotFound(
                f"{name} GPUs are asked for, and the host describes {len(found)}",
                code="device-unknown",
                hint=f"it describes: {', '.join(known)}",
            )
        return found[: int(name)]
    if name not in known:
        raise NotFound(
            f"the host describes no device {name!r:.100}",
            code="device-unknown",
            hint=f"it describes: {', '.join(known)}",
            device=name,
        )
    return [name]


def _known(directories: Iterable[Path]) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """For each device: the edits of its file, and its own."""
    known: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
    for directory in directories:
        for file in sorted(directory.glob("*")):
            if file.suffix not in (".json", ".yaml", ".yml"):
                continue
            try:
                raw = _read(file)
                kind = raw["kind"]
                for device in raw["devices"]:
                    known[f"{kind}={device['name']}"] = (
                        raw.get("containerEdits") or {},
                        device.get("containerEdits") or {},
                    )
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise FailedPrecondition(
                    f"{file}: not a description of devices (CDI): {error}",
                    code="cdi-invalid",
                    hint="correct or remove it",
                    path=str(file),
                ) from error
    return known


def _read(file: Path) -> dict[str, Any]:
    data = file.read_bytes()
    if file.suffix == ".json":
        raw = json.loads(data)
    else:
        import yaml

        try:
            raw = yaml.safe_load(data)
        except yaml.YAMLError as error:
            raise ValueError(str(error)) from error
    if not isinstance(raw, dict) or not str(raw.get("cdiVersion", "")).startswith(("0.", "1.")):
        raise ValueError("its cdiVersion is not 0.x or 1.x")
    return raw


def _add(edits: Edits, part: dict[str, Any]) -> Edits:
    mounts = [
        Mount(
            "bind", one["containerPath"], Path(one["hostPath"]), read_only="rw" not in one.get("options", ())
        )
        for one in part.get("mounts") or ()
    ]
    return Edits(
        (*edits.nodes, *(_node(one) for one in part.get("deviceNodes") or ())),
        (*edits.mounts, *mounts),
        (
            *edits.env,
            *((key, value) for key, _, value in (text.partition("=") for text in part.get("env") or ())),
        ),
        (*edits.groups, *(part.get("additionalGids") or ())),
        (*edits.hooks, *(part.get("hooks") or ())),
    )


def _node(raw: dict[str, Any]) -> dict[str, Any]:
    """Type and numbers come from the host's node where the description leaves them out."""
    path = raw["path"]
    node = {"path": path, "access": raw.get("permissions", "rwm")}
    if "type" in raw and "major" in raw:
        node |= {"type": raw["type"], "major": raw["major"], "minor": raw.get("minor", 0)}
    else:
        host = raw.get("hostPath", path)
        try:
            status = Path(host).stat()
        except OSError as error:
            raise FailedPrecondition(
                f"{host}: {error.strerror}: a device is described that is not there",
                code="cdi-invalid",
                hint="write the description again, e.g. after a driver's update",
            ) from error
        if not (stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)):
            raise InvalidArgument(f"{host} is not a device", code="cdi-invalid")
        kind = "c" if stat.S_ISCHR(status.st_mode) else "b"
        node |= {"type": kind, "major": os.major(status.st_rdev), "minor": os.minor(status.st_rdev)}
        node |= {"fileMode": status.st_mode & 0o777, "uid": status.st_uid, "gid": status.st_gid}
    return node | {name: raw[name] for name in ("fileMode", "uid", "gid") if name in raw}
