"""`aos diff`: what is different between two packages, or between a package and its base."""

from __future__ import annotations

from aos.cli._options import OUTPUT, Option, Verb
from aos.cli._output import clean, colour, print_json, size, wants_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from aos.cli._options import Arguments
    from aos.package import Package
    from aos.package.compare import Change, ConfigChange, FileChange, PackageDiff, SoftwareChange
    from aos.package.files import File

    Changes = Sequence[FileChange] | Sequence[SoftwareChange] | Sequence[ConfigChange]

__all__ = ["VERB", "main"]

VERB = Verb(
    "Show what is different from one package to another; of one alone, what it has beyond its base",
    "PACKAGE OTHER?",
    (
        Option("only", "", "WHAT", "Only files, packages or config", choices=("files", "packages", "config")),
        Option("path", "p", "PATTERN", "Only files below this path, or that fit this glob", repeat=True),
        Option("all", "a", help="Name every file of directories that came or went as a whole, too"),
        Option("times", help="Files that differ in their modification time alone are different, too"),
        Option("exit-code", help="Exit with 1 when anything shown is different"),
        OUTPUT,
    ),
)

_MARKS = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}


_STEP_WIDTH = 40


def main(args: Arguments) -> int:
    import os

    from aos.compose.packages import package_diff, package_diff_facts
    from aos.config import load_config

    diff = package_diff(load_config(os.environ), args["package"], args["other"], times=bool(args["times"]))
    only = "files" if args["path"] and not args["only"] else args["only"]
    files = _chosen(diff.files, args["path"])
    sections: dict[str, Any] = {"packages": diff.software, "config": diff.config, "files": files}
    shown = {name: changes for name, changes in sections.items() if only in (None, name)}
    if wants_json(args):
        print_json(package_diff_facts(diff, shown))
    else:
        _print(diff, shown, every_file=bool(args["all"]))
    return int(bool(args["exit-code"]) and any(shown.values()))


def _chosen(changes: Sequence[FileChange], patterns: Sequence[str]) -> Sequence[FileChange]:
    if not patterns:
        return changes
    import fnmatch

    wanted = ["/" + pattern.strip("/") for pattern in patterns]
    return [
        change
        for change in changes
        if any(
            f"/{change.path}".startswith(pattern.rstrip("/") + "/")
            or fnmatch.fnmatchcase(f"/{change.path}", pattern)
            for pattern in wanted
        )
    ]


def _print(diff: PackageDiff, shown: dict[str, Any], *, every_file: bool) -> None:
    before, after = diff.before, diff.after
    print(f"from     {_title(before)}")
    print(f"to       {_title(after)}")
    old = before.size if before else 0
    print(f"size     {_sizes(old, after.size)}; unpacked {_sizes(*diff.unpacked)}")
    layers = len(before.layers) if before else 0
    print(f"layers   {layers} -> {len(after.layers)}, {diff.shared_layers} the same")
    for name, changes in shown.items():
        print(f"\n{colour(name, 'bold')}   {_summary(changes)}")
        if name == "files":
            _print_files(diff, changes, every_file)
        for change in changes if name != "files" else ():
            print(_mark(change.change), clean(_words(change)))


def _print_files(diff: PackageDiff, changes: Sequence[FileChange], every_file: bool) -> None:
    rows = []
    position = 0
    while position < len(changes):
        change, whole = changes[position], 1
        if not every_file:
            whole = _tree(changes, position)
        path = f"/{change.path}" + ("/" if change.known.kind == "directory" else "")
        if whole > 1:
            files = [one.known for one in changes[position : position + whole]]
            said = f"{size(sum(file.size for file in files))} and {whole - 1} inside"
        else:
            said = _what(change)
        rows.append((change.change, clean(path), said, clean(_steps(diff, change))))
        position += whole
    widths = [min(60, max((len(row[column]) for row in rows), default=0)) for column in (1, 2)]
    for how, path, said, steps in rows:
        text = f"{path.ljust(widths[0])}  {said.ljust(widths[1])}  {colour(steps, 'dim')}".rstrip()
        print(_mark(how), text)


def _tree(changes: Sequence[FileChange], start: int) -> int:
    """How many changes, from this one on, are one directory that came or went as a whole, by one step."""
    first = changes[start]
    if first.change == "changed" or first.known.kind != "directory":
        return 1
    end = start + 1
    while end < len(changes) and changes[end].path.startswith(first.path + "/"):
        one = changes[end]
        if one.change != first.change or one.layers != first.layers:
            return 1
        end += 1
    return end - start


def _what(change: FileChange) -> str:
    before, after = change.before, change.after
    if before is None or after is None:
        return _description(change.known)
    return ", ".join(f"{aspect} {_aspect(aspect, before, after)}".strip() for aspect in change.aspects)


def _description(file: File) -> str:
    if file.kind == "file":
        return f"also {file.link}" if file.link else size(file.size)
    return f"-> {file.link}" if file.kind == "symlink" else file.kind


def _aspect(aspect: str, before: File, after: File) -> str:
    one, two = _value(aspect, before), _value(aspect, after)
    return one if aspect == "content" and one == two else f"{one} -> {two}"


def _value(aspect: str, file: File) -> str:
    match aspect:
        case "type":
            return file.kind
        case "content":
            return size(file.size)
        case "mode":
            return f"{file.mode:04o}"
        case "owner":
            return f"{file.uid}:{file.gid}"
        case "link":
            return clean(file.link) or "none"
        case "device":
            return " ".join(map(str, file.device or ()))
        case "xattrs":
            return " ".join(clean(f"{name}={value}") for name, value in file.xattrs) or "none"
        case _:
            return f"{file.mtime_ns / 1e9:.9f}".rstrip("0").rstrip(".")


def _steps(diff: PackageDiff, change: FileChange) -> str:
    """The steps that are responsible, on each side where there is one."""
    one, two = (
        step if len(step) <= _STEP_WIDTH else step[: _STEP_WIDTH - 1] + "…"
        for step in diff.responsible(change)
    )
    return f"[{one or two}]" if one == two or not (one and two) else f"[{one} -> {two}]"


def _words(change: SoftwareChange | ConfigChange) -> str:
    import json

    if hasattr(change, "field"):
        one, two = (
            "none" if value is None else value if isinstance(value, str) else json.dumps(value)
            for value in (change.before, change.after)
        )
        said = two if change.change == "added" else one if change.change == "removed" else f"{one} -> {two}"
        return f"{change.field}: {said}"
    versions = " -> ".join(one.version for one in (change.before, change.after) if one)
    return f"{change.known.manager} {change.known.name} {versions}"


def _title(package: Package | None) -> str:
    if package is None:
        return "scratch"
    return clean(f"{package.manifest_digest[7:19]} {package.name or 'image'} {package.version}".strip())


def _sizes(before: int, after: int) -> str:
    sign = "+" if after >= before else "-"
    return f"{size(before)} -> {size(after)} ({sign}{size(abs(after - before))})"


def _summary(changes: Changes) -> str:
    counts = [
        f"{count} {how}" for how in _MARKS if (count := sum(change.change == how for change in changes))
    ]
    return ", ".join(counts) or "the same"


def _mark(how: Change) -> str:
    mark, name = _MARKS[how]
    return colour(mark, name)
