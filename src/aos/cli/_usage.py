"""What `aos packages du` prints: where the bytes of all packages, or of one, are."""

from __future__ import annotations

import os

from aos.cli._output import colour, print_json, size, table, wants_json
from aos.compose.packages import package_usage, registry_usage
from aos.config import load_config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aos.cli._options import Arguments
    from aos.package.usage import LayerUse

__all__ = ["show_package", "show_registry"]


def show_registry(args: Arguments) -> int:
    count, usage = _count(args), registry_usage(load_config(os.environ))
    if wants_json(args):
        print_json(
            {
                "size": usage.size,
                "packages": [
                    {
                        "digest": one.digest,
                        "references": one.references,
                        "size": one.size,
                        "shared": one.shared,
                        "unique": one.unique,
                    }
                    for one in usage.packages
                ],
                "layers": [_layer(one) for one in usage.layers],
            }
        )
        return 0
    _section(
        "",
        ("REFERENCE", "DIGEST", "SIZE", "SHARED", "UNIQUE"),
        (
            (", ".join(one.references), one.digest[7:19], size(one.size), size(one.shared), size(one.unique))
            for one in usage.packages
        ),
    )
    _section(
        f"layers   {size(usage.size)} stored",
        ("LAYER", "SIZE", "PACKAGES", "CREATED BY"),
        (
            (one.layer.digest[7:19], size(one.layer.size), len(one.packages), _cut(one.created_by))
            for one in usage.layers[:count]
        ),
    )
    _more(len(usage.layers), count)
    return 0


def show_package(args: Arguments) -> int:
    count = _count(args)
    usage = package_usage(load_config(os.environ), args["reference"], count=count)
    if wants_json(args):
        print_json(
            {
                "size": usage.size,
                "files": usage.files,
                "hidden": {"size": usage.hidden_size, "files": len(usage.hidden)},
                "layers": [_layer(one) for one in usage.layers],
                "directories": [
                    {"path": _path(one.path), "size": one.size, "files": one.files}
                    for one in usage.directories
                ],
                "packages": [
                    {"manager": one.manager, "name": one.name, "version": one.version, "size": one.size}
                    for one in usage.software
                ],
                "largest": [
                    {"path": _path(one.path), "size": one.size, "layer": one.layer} for one in usage.largest
                ],
            }
        )
        return 0
    _section(
        "layers",
        ("LAYER", "SIZE", "UNPACKED", "SHARED WITH", "CREATED BY"),
        (
            (
                one.layer.digest[7:19],
                size(one.layer.size),
                size(one.unpacked),
                len(one.packages) - 1 or "-",
                _cut(one.created_by),
            )
            for one in usage.layers
        ),
    )
    _section(
        f"directories   {size(usage.size)} in {usage.files} files",
        ("SIZE", "FILES", "PATH"),
        ((size(one.size), one.files, _path(one.path)) for one in usage.directories),
    )
    _section(
        "packages",
        ("SIZE", "MANAGER", "NAME", "VERSION"),
        ((size(one.size), one.manager, one.name, one.version) for one in usage.software),
    )
    _section("files", ("SIZE", "PATH"), ((size(one.size), _path(one.path)) for one in usage.largest))
    if usage.hidden:
        _section(
            f"hidden by later layers   {size(usage.hidden_size)} in {len(usage.hidden)} files",
            ("SIZE", "PATH"),
            ((size(one.size), _path(one.path)) for one in usage.hidden[:count]),
        )
    return 0


def _section(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    found = list(rows)
    if not found and title:
        return
    if title:
        head, _, rest = title.partition("   ")
        print(f"\n{colour(head, 'bold')}   {rest}".rstrip())
    table(columns, found)


def _more(there: int, shown: int) -> None:
    if there > shown:
        print(f"… and {there - shown} more: -n {there} shows all")


def _count(args: Arguments) -> int:
    text = args["count"]
    if text.isascii() and text.isdigit() and int(text[:9]) > 0:
        return int(text[:9])
    from aos.errors import InvalidArgument

    raise InvalidArgument(f"--count must be a number from 1 on, not {text!r:.40}", code="usage")


def _layer(one: LayerUse) -> dict[str, object]:
    return {
        "digest": one.layer.digest,
        "diff_id": one.layer.diff_id,
        "size": one.layer.size,
        "unpacked_size": one.unpacked,
        "created_by": one.created_by,
        "packages": one.packages,
    }


def _cut(step: str) -> str:
    return step if len(step) <= 60 else step[:59] + "…"


def _path(path: str) -> str:
    return "/" + path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
