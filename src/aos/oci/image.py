"""The OCI image config: what an image runs, and which layers it is made of.

Source: OCI image specification 1.1, "config.md". Fields that AOS does not know survive a round trip, so that a
foreign image stays itself.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aos.errors import InvalidArgument
from aos.oci.digest import Digest, parse_digest

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["History", "ImageSpec"]


@dataclass(frozen=True, slots=True)
class History:
    created: str = ""
    """RFC 3339."""
    created_by: str = ""
    comment: str = ""
    author: str = ""
    empty_layer: bool = False


@dataclass(frozen=True, slots=True)
class ImageSpec:
    architecture: str
    os: str = "linux"
    created: str = ""
    """RFC 3339; empty when unknown."""
    env: tuple[str, ...] = ()
    """`KEY=value`, in order."""
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    stop_signal: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    diff_ids: tuple[Digest, ...] = ()
    history: tuple[History, ...] = ()
    other: Mapping[str, Any] = field(default_factory=dict)
    """Top-level fields that are none of the above."""
    other_config: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `config` that are none of the above."""

    @classmethod
    def from_bytes(cls, data: bytes) -> ImageSpec:
        """Raise InvalidArgument (`image-config-invalid`) naming the field that is wrong."""
        try:
            raw = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise _invalid("it is not JSON") from error
        if not isinstance(raw, dict):
            raise _invalid("it is not a JSON object")
        config = _typed(raw.get("config") or {}, dict, "config")
        rootfs = _typed(raw.get("rootfs"), dict, "rootfs")
        return cls(
            architecture=_typed(raw.get("architecture"), str, "architecture"),
            os=_typed(raw.get("os"), str, "os"),
            created=_typed(raw.get("created") or "", str, "created"),
            env=_strings(config.get("Env"), "config.Env"),
            entrypoint=_strings(config.get("Entrypoint"), "config.Entrypoint"),
            cmd=_strings(config.get("Cmd"), "config.Cmd"),
            working_dir=_typed(config.get("WorkingDir") or "", str, "config.WorkingDir"),
            user=_typed(config.get("User") or "", str, "config.User"),
            stop_signal=_typed(config.get("StopSignal") or "", str, "config.StopSignal"),
            labels=_labels(config.get("Labels")),
            diff_ids=tuple(
                parse_digest(text) for text in _strings(rootfs.get("diff_ids"), "rootfs.diff_ids")
            ),
            history=tuple(_history(entry) for entry in _typed(raw.get("history") or [], list, "history")),
            other={key: value for key, value in raw.items() if key not in _TOP},
            other_config={key: value for key, value in config.items() if key not in _CONFIG},
        )

    def to_bytes(self) -> bytes:
        """Canonical JSON: sorted keys, no spaces, empty fields left out."""
        config: dict[str, Any] = {
            "Env": list(self.env),
            "Entrypoint": list(self.entrypoint),
            "Cmd": list(self.cmd),
            "WorkingDir": self.working_dir,
            "User": self.user,
            "StopSignal": self.stop_signal,
            "Labels": dict(self.labels),
        }
        raw: dict[str, Any] = {
            **self.other,
            "architecture": self.architecture,
            "os": self.os,
            "rootfs": {"type": "layers", "diff_ids": list(self.diff_ids)},
            "config": {**self.other_config, **{key: value for key, value in config.items() if value}},
        }
        if self.created:
            raw["created"] = self.created
        if self.history:
            raw["history"] = [
                {name: value for name in _HISTORY if (value := getattr(entry, name))}
                for entry in self.history
            ]
        return json.dumps(raw, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


_TOP = {"architecture", "os", "created", "config", "rootfs", "history"}
_CONFIG = {"Env", "Entrypoint", "Cmd", "WorkingDir", "User", "StopSignal", "Labels"}
_HISTORY = ("created", "created_by", "comment", "author", "empty_layer")


def _typed(value: Any, kind: type, where: str) -> Any:
    if not isinstance(value, kind):
        raise _invalid(f"'{where}' must be a {kind.__name__}, not {value!r:.60}")
    return value


def _strings(value: Any, where: str) -> tuple[str, ...]:
    return tuple(
        _typed(item, str, f"{where}[{index}]") for index, item in enumerate(_typed(value or [], list, where))
    )


def _labels(value: Any) -> dict[str, str]:
    labels = _typed(value or {}, dict, "config.Labels")
    return {key: _typed(item, str, f"config.Labels[{key!r}]") for key, item in labels.items()}


def _history(entry: Any) -> History:
    raw = _typed(entry, dict, "history")
    text = {name: _typed(raw.get(name) or "", str, f"history.{name}") for name in _HISTORY[:-1]}
    return History(**text, empty_layer=raw.get("empty_layer") is True)


def _invalid(why: str) -> InvalidArgument:
    return InvalidArgument(f"not an OCI image config: {why}", code="image-config-invalid")
