"""The text of one file: YAML or JSON in, nodes with places out. No value is trusted yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aos.agentfile.composer import compose
from aos.agentfile.problems import AgentfileError, Problem

if TYPE_CHECKING:
    from pathlib import Path

    from aos.agentfile.nodes import Node

__all__ = ["SIZE_LIMIT", "Document"]

SIZE_LIMIT = 4 << 20
"""Bytes of an Agentfile: room for 10,000 steps of 400 bytes."""


class Document:
    """One file, its lines for messages, and its root node. A package's definition has no lines."""

    root: Node

    def __init__(self, file: str, via: tuple[str, ...] = (), *, is_package: bool = False) -> None:
        self.file = file
        """Its name in messages."""
        self.via = via
        """The places of the `extends` that led to it, nearest first."""
        self.is_package = is_package
        """Not a file: the definition that a package carries, and `file` is the package."""
        self.has_marks = False
        """Whether `${{` is in one of its texts."""
        self.lines: list[str] = []

    @classmethod
    def read(cls, file: str, data: bytes, via: tuple[str, ...] = ()) -> Document:
        """Raise AgentfileError (`agentfile-syntax`)."""
        made = cls(file, via)
        if len(data) > SIZE_LIMIT:
            raise made.error(1, 1, f"the file has {len(data)} bytes; an Agentfile has at most {SIZE_LIMIT}")
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            before = data[: error.start]
            line = before.count(b"\n") + 1
            column = len(before.rpartition(b"\n")[2].decode(errors="replace")) + 1
            raise made.error(
                line, column, f"byte 0x{data[error.start]:02x} is not UTF-8", hint="save the file as UTF-8"
            ) from error
        made.lines = text.split("\n")
        made.root = compose(made, text)
        return made

    @classmethod
    def load(cls, path: Path, via: tuple[str, ...] = ()) -> Document:
        """`read` a file. NotFound `agentfile-missing`, InvalidArgument `agentfile-unreadable`."""
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
        return cls.read(str(path), data, via)

    def place(self, node: Node) -> str:
        """`file:line:column`."""
        return self.file if self.is_package else f"{self.file}:{node.line}:{node.column}"

    def problem(
        self, node: Node, message: str, *, code: str = "agentfile-invalid", hint: str = ""
    ) -> Problem:
        return self._problem(node.line, node.column, message, code, hint)

    def error(self, line: int, column: int, message: str, *, hint: str = "") -> AgentfileError:
        return AgentfileError([self._problem(line, column, message, code="agentfile-syntax", hint=hint)])

    def _problem(self, line: int, column: int, message: str, code: str, hint: str) -> Problem:
        source = self.lines[line - 1] if 0 < line <= len(self.lines) else ""
        return Problem(self.file, line, column, message, code, hint, source.rstrip("\r"), self.via)
