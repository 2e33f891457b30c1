"""What is different between two packages: files, what package managers have installed, configuration, size. Pure.

Modification times count only when they are asked for: all of a package's are its SOURCE_DATE_EPOCH.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from aos.package.facts import layer_facts
from aos.package.files import File, PackageFiles, merge, read_layers
from aos.package.software import Software, installed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from aos.package.documents import BlobReader
    from aos.package.facts import Package

__all__ = [
    "Aspect",
    "Change",
    "ConfigChange",
    "FileChange",
    "PackageDiff",
    "SoftwareChange",
    "aspects_of",
    "compare",
    "config_changes",
]

Aspect = Literal["type", "content", "mode", "owner", "link", "device", "xattrs", "time"]
Change = Literal["added", "removed", "changed"]

_OWN_LABELS = "aos.openos.dev/"
"""Labels that repeat what is compared as definition, name or layers."""


@dataclass(frozen=True, slots=True)
class FileChange:
    path: str
    before: File | None
    after: File | None
    aspects: tuple[Aspect, ...] = ()
    """What differs, of a file that both have."""
    removed_by: int | None = None
    """The layer of the later package that removed the file; None when that never had it."""

    @property
    def known(self) -> File:
        """The one of both that is there, the later one first."""
        found = self.after or self.before
        assert found is not None
        return found

    @property
    def change(self) -> Change:
        return _change(self.before, self.after)

    @property
    def layers(self) -> tuple[int | None, int | None]:
        """The layers that are responsible, on each side; None where there is none."""
        after = self.after.layer if self.after else self.removed_by
        return self.before.layer if self.before else None, after


@dataclass(frozen=True, slots=True)
class SoftwareChange:
    before: Software | None
    after: Software | None

    @property
    def known(self) -> Software:
        """The one of both that is there, the later one first."""
        found = self.after or self.before
        assert found is not None
        return found

    @property
    def change(self) -> Change:
        return _change(self.before, self.after)


@dataclass(frozen=True, slots=True)
class ConfigChange:
    field: str
    """`env PATH`, `user`, `definition stages[build].steps[0].args`; `stages[]` is the package's own."""
    before: Any
    """JSON; None when it is not there."""
    after: Any

    @property
    def change(self) -> Change:
        return _change(self.before, self.after)


@dataclass(frozen=True, slots=True)
class PackageDiff:
    before: Package | None
    """None: nothing, what a package from scratch stands on."""
    after: Package
    files: tuple[FileChange, ...]
    """By path, a directory before what it holds."""
    software: tuple[SoftwareChange, ...]
    config: tuple[ConfigChange, ...]
    shared_layers: int
    """Layers of `after` that `before` has, too."""
    unpacked: tuple[int, int]
    """Bytes of all layers' tars, before and after."""

    def responsible(self, change: FileChange) -> tuple[str, str]:
        """The steps that made a file what it is, before and after; empty where there is none."""
        return _step(self.before, change.layers[0]), _step(self.after, change.layers[1])


def compare(blobs: BlobReader, before: Package | None, after: Package, *, times: bool = False) -> PackageDiff:
    """Compare what two packages of the store hold. Raise what reading layers raises (`files.layer_files`)."""
    old, new = before.layers if before else (), after.layers
    layers = read_layers(blobs, (*old, *new))
    one = merge(layers[layer.diff_id] for layer in old)
    two = merge(layers[layer.diff_id] for layer in new)
    known = {layer.diff_id for layer in old}
    return PackageDiff(
        before,
        after,
        tuple(_files(one, two, times=times)),
        tuple(_software(installed(one.files.values()), installed(two.files.values()))),
        tuple(config_changes(before, after)),
        sum(layer.diff_id in known for layer in new),
        (
            sum(layers[layer.diff_id].unpacked for layer in old),
            sum(layers[layer.diff_id].unpacked for layer in new),
        ),
    )


def config_changes(before: Package | None, after: Package) -> Iterator[ConfigChange]:
    """What two packages say differently, beside their files."""
    old, new = _facts(before) if before else {}, _facts(after)
    for name in dict.fromkeys([*old, *new]):
        if old.get(name) != new.get(name):
            yield ConfigChange(name, old.get(name), new.get(name))


def aspects_of(before: File, after: File, *, times: bool) -> tuple[Aspect, ...]:
    """In which respects two files of one path differ."""
    if before.kind != after.kind:
        return ("type",)
    pairs: tuple[tuple[Aspect, object, object], ...] = (
        ("content", before.content, after.content),
        ("mode", before.mode, after.mode),
        ("owner", (before.uid, before.gid), (after.uid, after.gid)),
        ("link", before.link, after.link),
        ("device", before.device, after.device),
        ("xattrs", before.xattrs, after.xattrs),
        ("time", before.mtime_ns * times, after.mtime_ns * times),
    )
    return tuple(name for name, left, right in pairs if left != right)


def _files(before: PackageFiles, after: PackageFiles, *, times: bool) -> Iterator[FileChange]:
    for path in sorted(before.files.keys() | after.files.keys(), key=lambda path: path.split("/")):
        old, new = before.files.get(path), after.files.get(path)
        if old is None or new is None:
            yield FileChange(path, old, new, removed_by=after.removed.get(path) if new is None else None)
        elif old is not new and (aspects := aspects_of(old, new, times=times)):
            yield FileChange(path, old, new, aspects)


def _software(before: Iterable[Software], after: Iterable[Software]) -> Iterator[SoftwareChange]:
    """By manager and name; a name that both have in one version each has changed, all else comes or goes."""
    old, new = _by_name(before), _by_name(after)
    for key in sorted(old.keys() | new.keys()):
        versions = {one.version for one in old.get(key, [])}, {one.version for one in new.get(key, [])}
        gone = [one for one in old.get(key, []) if one.version not in versions[1]]
        come = [one for one in new.get(key, []) if one.version not in versions[0]]
        if len(gone) == len(come) == 1:
            yield SoftwareChange(gone[0], come[0])
        else:
            yield from (SoftwareChange(one, None) for one in gone)
            yield from (SoftwareChange(None, one) for one in come)


def _by_name(software: Iterable[Software]) -> dict[tuple[str, str], list[Software]]:
    found: dict[tuple[str, str], list[Software]] = {}
    for one in software:
        found.setdefault((one.manager, one.name), []).append(one)
    return found


def _facts(package: Package) -> dict[str, Any]:
    """Everything that a package says beside its files, one entry for each thing that can change alone."""
    image = package.image
    facts: dict[str, Any] = {
        "platform": f"{image.os}/{image.architecture}",
        "entrypoint": list(image.entrypoint) or None,
        "cmd": list(image.cmd) or None,
        "working_dir": image.working_dir or None,
        "user": image.user or None,
        "stop_signal": image.stop_signal or None,
    }
    for entry in image.env:
        name, _, value = entry.partition("=")
        facts[f"env {name}"] = value
    for name, value in sorted(image.labels.items()):
        if not name.startswith(_OWN_LABELS):
            facts[f"label {name}"] = value
    for name, value in sorted(image.other_config.items()):
        facts[f"config {name}"] = value
    for name, value in sorted((package.definition or {}).items()):
        if name not in ("entrypoint", "config"):  # the image says the same
            facts.update(_leaves(f"definition {name}", value))
    return facts


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """A value of JSON as its leaves, by path; a list without objects is one leaf."""
    if isinstance(value, dict) and value:
        for key, item in sorted(value.items()):
            yield from _leaves(f"{name}.{key}", item)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for position, item in enumerate(value):
            stage = isinstance(item, dict) and ("steps" in item or "base" in item)
            yield from _leaves(f"{name}[{item.get('name', '') if stage else position}]", item)
    else:
        yield name, value


def _step(package: Package | None, layer: int | None) -> str:
    if package is None or layer is None:
        return ""
    return layer_facts(package)[layer].created_by or "a step that is not known"


def _change(before: object, after: object) -> Change:
    return "added" if before is None else "removed" if after is None else "changed"
