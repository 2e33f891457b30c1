"""Secrets that `run` steps use: what `aos build --secret` gives, read when a step needs it, and kept nowhere.

Not in a layer, the history, a cache key or a file: a step gets it as a file that is in memory only. What it writes
to its output is redacted (aos.redaction).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from aos.errors import FailedPrecondition, InvalidArgument, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["SecretSource", "Secrets", "parse_secret"]

_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_LARGEST = 1 << 20
"""Bytes; the tmpfs that holds it is memory."""


@dataclass(frozen=True, slots=True)
class SecretSource:
    """Where a secret is: a variable of whoever builds, or a file."""

    id: str
    env: str = ""
    file: Path | None = None


def parse_secret(text: str, environ: Mapping[str, str]) -> SecretSource:
    """`id=NAME,src=FILE`, `id=NAME,env=VARIABLE`, or `id=NAME`: the variable NAME where there is one, else the file.

    As docker build has it (`source`, `type=file|env` too). Raise InvalidArgument (`secret-invalid`), NotFound
    (`secret-not-found`).
    """
    fields: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        name = {"source": "src"}.get(name, name)
        if not equals or not value or name not in ("id", "src", "env", "type") or name in fields:
            raise _invalid("is not understood")
        fields[name] = value
    id, kind = fields.get("id", ""), fields.get("type", "")
    if not _ID.fullmatch(id):
        raise _invalid("needs an id of letters, digits, '_', '.' and '-'")
    if kind not in ("", "file", "env") or {"src", "env"} <= fields.keys():
        raise _invalid(f"{id!r} is a file or a variable, not both")
    if kind == "env" or "env" in fields or (kind == "" and "src" not in fields and id in environ):
        variable = fields.get("env") or fields.get("src") or id
        if variable not in environ:
            raise _absent(id, f"the variable {variable} is not set")
        return SecretSource(id, env=variable)
    file = Path(fields.get("src", id))
    if not file.exists():
        raise _absent(id, f"there is no file {str(file)!r}")
    if file.is_dir():
        raise _absent(id, f"{str(file)!r} is a directory")
    return SecretSource(id, file=file.absolute())


def _invalid(why: str) -> InvalidArgument:
    """Says nothing of the text: whoever swaps the fields has written the secret itself."""
    return InvalidArgument(
        f"--secret {why}",
        code="secret-invalid",
        hint="--secret id=NAME,src=FILE, --secret id=NAME,env=VARIABLE or --secret id=NAME",
    )


def _absent(id: str, why: str) -> NotFound:
    return NotFound(
        f"the secret {id!r} cannot be read: {why}",
        code="secret-not-found",
        hint="see what --secret names",
        secret=id,
    )


@dataclass(slots=True)
class Secrets:
    """All that one build was given, by id; each is read once, for it may be a pipe."""

    sources: Mapping[str, SecretSource]
    environ: Mapping[str, str]
    _read: dict[str, bytes] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, sources: Iterable[SecretSource], environ: Mapping[str, str]) -> Secrets:
        return cls({source.id: source for source in sources}, environ)

    def get(self, id: str) -> bytes | None:
        """What a secret holds; None when it was not given. Raise NotFound (`secret-not-found`), FailedPrecondition
        (`secret-too-large`)."""
        source = self.sources.get(id)
        if source is None:
            return None
        if id not in self._read:
            self._read[id] = self._value(source)
        return self._read[id]

    def _value(self, source: SecretSource) -> bytes:
        if source.file is None:
            return os.fsencode(self.environ[source.env])
        try:
            with source.file.open("rb") as file:
                data = file.read(_LARGEST + 1)
        except OSError as error:
            raise _absent(source.id, f"{str(source.file)!r}: {error.strerror}") from error
        if len(data) > _LARGEST:
            raise FailedPrecondition(
                f"the secret {source.id!r} is larger than 1 MiB",
                code="secret-too-large",
                hint="secrets are kept in memory; mount large files from a stage",
                secret=source.id,
            )
        return data
