"""Who may import whom (DESIGN: the rooms), read from the syntax trees; also function-local imports count.

An import for types only (under TYPE_CHECKING) binds a room to another's names, not to its code, so a few
directions are allowed for types alone; it never may point upwards.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).parents[2] / "src/aos"

FOUNDATION = {"__version__", "errors", "ids", "clock", "redaction"}
"""Every room may import these; of ours they import nothing but each other's types."""

MAY: dict[str, set[str]] = {
    "errors": set(),
    "ids": set(),
    "clock": set(),
    "redaction": set(),
    "rootless": set(),
    "config": {"rootless.user"},
    "oci": set(),
    "content": {"oci", "rootless.user"},
    "package": {"content", "oci"},
    "registry": {"content", "oci", "package", "rootless.user"},
    "agentfile": {"registry.protocol", "oci", "runtime.network.rules"},
    "build": {
        "agentfile",
        "package",
        "content",
        "oci",
        "registry",
        "runtime.protocol",
        "runtime.spec",
        "runtime.state",
        "runtime.users",
    },
    "runtime": {"package", "content", "oci", "rootless"},
    "kernel": set(),
    "node": {"kernel", "runtime", "content", "oci", "package", "registry.protocol", "config"},
    "client": {"config", "rootless.delegation"},
    "compose": {
        "agentfile",
        "build",
        "client",
        "config",
        "content",
        "kernel",
        "node",
        "oci",
        "package",
        "registry",
        "rootless",
        "runtime",
    },
    "cli": {"compose", "client", "config", "rootless"},
    "testing": {"content", "kernel", "oci", "package", "registry", "runtime"},
}

FOR_TYPES: dict[str, set[str]] = {
    "cli": {"agentfile", "build", "content", "oci", "package", "registry", "runtime"},
}


class Import(NamedTuple):
    where: str
    """file:line"""
    room: str
    target: str
    """Dotted, without `aos.`."""
    types_only: bool


def imports_of(file: Path) -> list[Import]:
    """All imports of our own modules in a file, wherever they stand."""
    relative = file.relative_to(SOURCE)
    room = relative.parts[0].removesuffix(".py")
    found: list[Import] = []

    def visit(node: ast.AST, types_only: bool) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for statement in node.body:
                visit(statement, True)
            for statement in node.orelse:
                visit(statement, types_only)
            return
        targets: list[str] = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                package = ["aos", *relative.parts[:-1]]
                base = ".".join(package[: len(package) - node.level + 1])
                targets = [f"{base}.{node.module}" if node.module else base]
            elif node.module == "aos":
                targets = [f"aos.{alias.name}" for alias in node.names]
            else:
                targets = [node.module or ""]
        for target in targets:
            if target.startswith("aos."):
                found.append(Import(f"{relative}:{getattr(node, 'lineno', 0)}", room, target[4:], types_only))
        for child in ast.iter_child_nodes(node):
            visit(child, types_only)

    visit(ast.parse(file.read_text()), False)
    return found


def allowed(found: Import) -> bool:
    room = found.target.partition(".")[0]
    if room == found.room or room in FOUNDATION:
        return True
    granted = MAY[found.room] | (FOR_TYPES.get(found.room, set()) if found.types_only else set())
    return any(found.target == grant or found.target.startswith(grant + ".") for grant in granted)


def all_imports() -> list[Import]:
    return [found for file in sorted(SOURCE.rglob("*.py")) for found in imports_of(file)]


def test_rooms_import_only_what_the_design_lets_them() -> None:
    wrong = [
        f"src/aos/{one.where}: {one.room} may not import aos.{one.target}"
        for one in all_imports()
        if not allowed(one)
    ]
    assert not wrong, "\n" + "\n".join(wrong)


def test_every_room_has_its_line_and_no_room_is_empty() -> None:
    rooms = {file.relative_to(SOURCE).parts[0].removesuffix(".py") for file in SOURCE.rglob("*.py")} - {
        "__init__"
    }
    assert rooms <= set(MAY)
    for room in rooms:
        files = [SOURCE / f"{room}.py", *(SOURCE / room).rglob("*.py")]
        assert any(file.exists() and file.read_text().strip() for file in files), f"{room} is empty"


def test_the_directions_have_no_cycle() -> None:
    above: dict[str, set[str]] = {room: {grant.partition(".")[0] for grant in MAY[room]} for room in MAY}
    while above:
        lowest = {room for room, below in above.items() if not below & set(above)}
        assert lowest, f"a cycle among {sorted(above)}"
        above = {room: below for room, below in above.items() if room not in lowest}


@pytest.mark.parametrize("room", ["errors", "ids", "clock"])
def test_the_foundation_imports_nothing_of_ours(room: str) -> None:
    assert imports_of(SOURCE / f"{room}.py") == []


WORLD = {
    "os",
    "socket",
    "subprocess",
    "asyncio",
    "threading",
    "time",
    "random",
    "secrets",
    "pathlib",
    "signal",
}


def test_the_process_machine_does_no_io() -> None:
    """Sans-I/O: the kernel's machines reach clocks, files and processes through effects alone."""
    machine = SOURCE / "kernel/process"
    for file in machine.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            assert not {name.partition(".")[0] for name in names} & WORLD, f"{file}: {names}"


def test_the_reader_sees_every_form_of_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "SOURCE", tmp_path)
    file = tmp_path / "oci" / "x.py"
    file.parent.mkdir()
    file.write_text(
        "import aos.kernel\nfrom aos import node\nfrom . import y\nfrom .z import a\n"
        "def f():\n    from aos.node.main import b\n"
        "if TYPE_CHECKING:\n    from aos.cli import c\nelse:\n    import aos.build.plan.graph\n"
    )
    found = imports_of(file)
    assert [(one.target, one.types_only) for one in found] == [
        ("kernel", False),
        ("node", False),
        ("oci", False),
        ("oci.z", False),
        ("node.main", False),
        ("cli", True),
        ("build.plan.graph", False),
    ]
    assert [allowed(one) for one in found] == [False, False, True, True, False, False, False]
