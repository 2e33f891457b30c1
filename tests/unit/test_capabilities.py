"""docs/capabilities.md stays true: a known state in every row, and an existing test behind every claim."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).parents[2]
STATES = {"Target", "In progress", "Implemented"}


class Row(NamedTuple):
    capability: str
    state: str
    evidence: str


def rows() -> list[Row]:
    found = []
    for line in (REPOSITORY / "docs/capabilities.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and cells[0] != "capability" and not set(cells[0]) <= set("-: "):
            assert len(cells) == 3, line
            found.append(Row(*cells))
    return found


def node_exists(node: str) -> bool:
    """`tests/….py::name` or `tests/….py::Class::name`."""
    file, *names = node.split("::")
    path = REPOSITORY / file
    if not names or not path.is_file() or not file.startswith("tests/"):
        return False
    body: list[ast.stmt] = ast.parse(path.read_text()).body
    for name in names:
        found = [
            child
            for child in body
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and child.name == name
        ]
        if not found:
            return False
        body = found[0].body
    return True


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.capability)
def test_a_claim_has_its_evidence(row: Row) -> None:
    assert row.state in STATES
    nodes = re.findall(r"`([^`]+::[^`]+)`", row.evidence)
    if row.state == "Implemented":
        assert nodes, f"{row.capability}: Implemented, but no test is named"
    missing = [node for node in nodes if not node_exists(node)]
    assert not missing, f"{row.capability}: no such test: {missing}"


def test_no_capability_is_listed_twice() -> None:
    names = [row.capability for row in rows()]
    assert len(names) == len(set(names))


def test_the_check_can_fail() -> None:
    assert node_exists("tests/unit/test_capabilities.py::test_the_check_can_fail")
    assert not node_exists("tests/unit/test_capabilities.py::test_nothing")
    assert not node_exists("tests/unit/test_none.py::test_x")
    assert not node_exists("src/aos/errors.py::AosError")
