"""Documents speak of what exists: links, make targets, verbs, error codes."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from aos.cli.main import SUMMARIES
from aos.errors import KINDS

REPOSITORY = Path(__file__).parents[2]
DOCUMENTS = sorted(
    [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md"), *REPOSITORY.glob("examples/*/*.md")]
)


def relative(file: Path) -> str:
    return str(file.relative_to(REPOSITORY))


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", document.read_text())
    broken = [
        link
        for link in links
        if not re.match(r"https?://|#", link) and not (document.parent / link.partition("#")[0]).exists()
    ]
    assert not broken


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_make_targets_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    named = {
        word
        for words in re.findall(r"(?:`|^|\$ |&& )make ((?:[a-z-]+ ?)+)", document.read_text(), re.MULTILINE)
        for word in words.split()
    }
    assert named <= targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_verbs_exist(document: Path) -> None:
    named = set(re.findall(r"(?:`|^|\$ |\| )aos ([a-z]+)", document.read_text(), re.MULTILINE))
    assert named <= set(SUMMARIES) | {"server"}  # the control plane's verb comes later


def literals(expression: ast.expr) -> list[str]:
    """The kebab-case texts that an expression may be."""
    if isinstance(expression, ast.IfExp):
        return literals(expression.body) + literals(expression.orelse)
    if isinstance(expression, ast.BoolOp):
        return [code for value in expression.values for code in literals(value)]
    if isinstance(expression, ast.Constant) and isinstance(expression.value, str):
        return re.findall(r"^[a-z]+(?:-[a-z0-9]+)*$", expression.value)
    return []


def codes_in_source() -> dict[str, set[str]]:
    """Every literal `code="…"` of a call, and every default, with the files that raise it."""
    found: dict[str, set[str]] = {}
    for file in sorted((REPOSITORY / "src/aos").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                for keyword in node.keywords:
                    if keyword.arg == "code":
                        for code in literals(keyword.value):
                            found.setdefault(code, set()).add(relative(file))
    for kind in KINDS.values():
        found.setdefault(kind.default_code, set()).add("src/aos/errors.py")
    return found


def test_every_error_code_is_documented_and_none_is_invented() -> None:
    documented = set(
        re.findall(r"^\| `([a-z0-9-]+)` \|", (REPOSITORY / "docs/errors.md").read_text(), re.MULTILINE)
    )
    raised = codes_in_source()
    undocumented = {code: sorted(files) for code, files in raised.items() if code not in documented}
    assert not undocumented, f"add to docs/errors.md: {undocumented}"
    assert not documented - set(raised), "docs/errors.md names codes that nothing raises"


def test_the_exit_codes_are_documented_as_they_are() -> None:
    text = (REPOSITORY / "docs/errors.md").read_text()
    table = dict(re.findall(r"^\| (\d+) \| ([A-Za-z]+) \|", text, re.MULTILINE))
    assert table == {str(error.exit_code): kind for kind, error in KINDS.items()}


def test_the_readme_shows_the_example_as_it_is() -> None:
    example = (REPOSITORY / "examples/hello/Agentfile").read_text()
    assert f"```yaml\n{example}```" in (REPOSITORY / "README.md").read_text()
