"""One pinned thing, one line of words: how a lock names a Python file and a Debian package.

    python   NAME VERSION FILE sha256:HEX
    debian   NAME VERSION ARCHITECTURE sha256:HEX [ARCHIVE [PRIORITY]]

Other plugins write lines of their own; the first word is the name that `--upgrade` takes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["DebianPackage", "PythonFile", "digests_of", "name_of", "normal_name"]

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_-]*")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.!+-]*\.(whl|tar\.gz|tar\.bz2|tar\.xz|tgz|zip)")
_DEBIAN_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_DEBIAN_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+:~-]*")
_ARCHITECTURE = re.compile(r"[a-z0-9][a-z0-9-]*")


@dataclass(frozen=True, slots=True)
class PythonFile:
    """A wheel, or the source archive that it is built from."""

    name: str
    """Normalized as in the packaging specifications ("Names and normalization")."""
    version: str
    file: str
    digest: str

    @classmethod
    def parse(cls, line: str) -> PythonFile:
        """Raise ValueError with what is wrong, for people."""
        words = line.split(" ")
        if len(words) != 4:
            raise ValueError("a Python pin is four words: NAME VERSION FILE sha256:HEX")
        name, version, file, digest = words
        _check(_NAME, name, "a normalized package name")
        _check(_VERSION, version, "a version")
        _check(_FILE, file, "the name of a wheel or a source archive")
        _check(_DIGEST, digest, "sha256: and 64 hexadecimal digits")
        if file.endswith(".whl") and normal_name(file.partition("-")[0]) != name:
            raise ValueError(f"{file} is not a file of {name}")
        return cls(name, version, file, digest)

    def to_line(self) -> str:
        return f"{self.name} {self.version} {self.file} {self.digest}"


@dataclass(frozen=True, slots=True)
class DebianPackage:
    name: str
    version: str
    architecture: str
    digest: str
    archive: str = ""
    """Where it was found, `bookworm-security/main`: for people, checked by nobody."""
    priority: str = ""
    """What the archive says of it, where the package says something else; a base consists of what is `required`."""

    @classmethod
    def parse(cls, line: str) -> DebianPackage:
        """Raise ValueError with what is wrong, for people."""
        words = line.split(" ")
        if not 4 <= len(words) <= 6:
            raise ValueError(
                "a Debian pin is NAME VERSION ARCHITECTURE sha256:HEX, and maybe ARCHIVE, PRIORITY"
            )
        _check(_DEBIAN_NAME, words[0], "a package name")
        _check(_DEBIAN_VERSION, words[1], "a version")
        _check(_ARCHITECTURE, words[2], "an architecture")
        _check(_DIGEST, words[3], "sha256: and 64 hexadecimal digits")
        return cls(*words)

    @classmethod
    def of_file(cls, file: str, digest: str) -> DebianPackage:
        """From the name that apt gives to a file: `NAME_VERSION_ARCHITECTURE.deb`, the version's colon as %3a."""
        name, version, architecture = file.removesuffix(".deb").split("_")
        return cls(name, version.replace("%3a", ":"), architecture, digest)

    @property
    def file(self) -> str:
        return f"{self.name}_{self.version.replace(':', '%3a')}_{self.architecture}.deb"

    def to_line(self) -> str:
        words = (self.name, self.version, self.architecture, self.digest, self.archive or "-", self.priority)
        return " ".join(words).removesuffix(" ").removesuffix(" -")


def name_of(line: str) -> str:
    return line.partition(" ")[0]


def digests_of(lines: Iterable[str]) -> tuple[str, ...]:
    """The digests of all files that the lines name."""
    return tuple(found[0] for line in lines if (found := _DIGEST.search(line)))


def normal_name(name: str) -> str:
    """Source: packaging.python.org, "Names and normalization"."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _check(pattern: re.Pattern[str], word: str, what: str) -> None:
    if not pattern.fullmatch(word):
        raise ValueError(f"{word!r:.80} is not {what}")
