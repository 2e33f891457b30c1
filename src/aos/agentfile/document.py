"""A document as nodes with places: YAML or JSON text in, PyYAML's node graph out. No value is trusted yet.

YAML 1.2's core schema decides what a plain scalar is; where YAML 1.1 would have decided otherwise (`no`, `1:30`,
`2024-01-01`) a reader may be surprised, so those are told apart (`Scalar.kind`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import yaml

from aos.agentfile.problems import AgentfileError, Problem

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SIZE_LIMIT", "Document", "scalar_kind"]

SIZE_LIMIT = 1 << 20
"""Bytes of an Agentfile."""
_DEPTH_LIMIT = 50
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_KINDS = (
    ("null", re.compile(r"~|null|Null|NULL|")),
    ("boolean", re.compile(r"true|True|TRUE|false|False|FALSE")),
    ("integer", re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")),
    (
        "number",
        re.compile(
            r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
        ),
    ),
    ("old boolean", re.compile(r"y|Y|yes|Yes|YES|n|N|no|No|NO|on|On|ON|off|Off|OFF")),
    ("old sexagesimal", re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")),
    ("date", re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ].*)?")),
    ("old integer", re.compile(r"[-+]?[0-9][0-9_]*_[0-9_]*|[-+]?0b[01_]+")),
)

_SURROGATES = re.compile(r"\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")
"""How JSON writes characters beyond U+FFFF, which YAML does not know."""


def _character(match: re.Match[str]) -> str:
    return chr(0x10000 + ((int(match[1], 16) - 0xD800) << 10) + int(match[2], 16) - 0xDC00)


def scalar_kind(node: yaml.ScalarNode) -> str:
    """`string`, or what a plain scalar is, or would have been in YAML 1.1 (`old …`, `date`)."""
    if node.style:
        return "string"
    for kind, pattern in _KINDS:
        if pattern.fullmatch(node.value):
            return kind
    return "string"


class Document:
    """The text of one file and its root node."""

    def __init__(self, file: str, data: bytes) -> None:
        self.file = file
        self.lines: list[str] = []
        if len(data) > SIZE_LIMIT:
            raise self.error(1, 1, f"the file has {len(data)} bytes; an Agentfile has at most {SIZE_LIMIT}")
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            before = data[: error.start]
            line = before.count(b"\n") + 1
            column = len(before.rpartition(b"\n")[2].decode(errors="replace")) + 1
            raise self.error(
                line, column, f"byte 0x{data[error.start]:02x} is not UTF-8", hint="save the file as UTF-8"
            ) from error
        self.lines = text.split("\n")
        self.root = self._compose(text)

    @classmethod
    def load(cls, path: Path) -> Document:
        from aos.errors import InvalidArgument, NotFound

        try:
            with path.open("rb") as file:
                data = file.read(SIZE_LIMIT + 1)
        except FileNotFoundError as error:
            raise NotFound(
                f"there is no {path}",
                code="agentfile-missing",
                hint="`aos init` writes one; `-f` names another",
                path=str(path),
            ) from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InvalidArgument(
                f"{path}: cannot read the Agentfile: {reason}", code="agentfile-unreadable", path=str(path)
            ) from error
        return cls(str(path), data)

    def problem(
        self, node: yaml.Node, message: str, *, code: str = "agentfile-invalid", hint: str = ""
    ) -> Problem:
        mark = node.start_mark
        return self._problem(mark.line + 1, mark.column + 1, message, code, hint)

    def error(
        self, line: int, column: int, message: str, *, code: str = "agentfile-syntax", hint: str = ""
    ) -> AgentfileError:
        return AgentfileError([self._problem(line, column, message, code, hint)])

    def _problem(self, line: int, column: int, message: str, code: str, hint: str) -> Problem:
        source = self.lines[line - 1] if 0 < line <= len(self.lines) else ""
        return Problem(self.file, line, column, message, code, hint, source.rstrip("\r"))

    def _compose(self, text: str) -> yaml.Node:
        bad = re.search(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", text)
        if bad:
            line = text.count("\n", 0, bad.start()) + 1
            column = bad.start() - (text.rfind("\n", 0, bad.start()) + 1) + 1
            raise self.error(line, column, f"the character U+{ord(bad[0]):04X} is not allowed in YAML")
        if text.lstrip().startswith("{"):
            text = _SURROGATES.sub(_character, text)
        try:
            self._check_depth(text)
            node = yaml.compose(text, Loader=_Loader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            raise self._syntax(line, column, error) from error
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            raise self.error(1, 1, f"not YAML: {str(error).splitlines()[0]}") from error
        if node is None:
            raise self.error(1, 1, "the file is empty", hint="`aos init` writes a good start")
        return node

    def _syntax(self, line: int, column: int, error: yaml.MarkedYAMLError) -> AgentfileError:
        problem = error.problem or "not YAML"
        source = self.lines[line - 1] if line <= len(self.lines) else ""
        if "\t" in source[: max(column, 1)] or "'\\t'" in problem:
            return self.error(line, column, "a tab cannot indent YAML", hint="use spaces")
        if "expected a single document" in (error.context or "") or "another document" in problem:
            return self.error(
                line, column, "a second document begins here", hint="one Agentfile, one document"
            )
        if "found undefined alias" in problem:
            return self.error(
                line, column, problem, hint="an alias needs an anchor before it, and outside of it"
            )
        context = f" ({error.context})" if error.context else ""
        hint = "quote values that hold ': ', ' #', or begin with one of [ ] { } & * ! | > % @"
        return self.error(line, column, f"not YAML: {problem}{context}", hint=hint)

    def _check_depth(self, text: str) -> None:
        """Before anything recursive sees it; libyaml's event parser is not."""
        depth = 0
        for event in yaml.parse(text, Loader=_Loader):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > _DEPTH_LIMIT:
                    mark = event.start_mark
                    assert mark is not None
                    raise self.error(
                        mark.line + 1, mark.column + 1, f"more than {_DEPTH_LIMIT} levels of nesting"
                    )
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
