"""Where the host gets Debian packages from: sources, keys, proxies and credentials, for another root.

Sources of the formats: sources.list(5) (one-line and deb822), apt.conf(5), apt_auth.conf(5), os-release(5).
Only the distribution's own archives are borrowed (suites that begin with the code name), with the code name of
the target put in the place of the host's; what else a host has added is its own affair.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from aos.errors import AosError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "ROLLING",
    "Archive",
    "Release",
    "acquire_options",
    "auth_files",
    "default_archives",
    "host_archives",
    "read_release",
    "trusted_keys",
]

_DEFAULT_SUITES = {
    "debian": (
        ("http://deb.debian.org/debian", ("{0}", "{0}-updates")),
        ("http://deb.debian.org/debian-security", ("{0}-security",)),
    ),
    "ubuntu": (
        ("http://archive.ubuntu.com/ubuntu", ("{0}", "{0}-updates")),
        ("http://security.ubuntu.com/ubuntu", ("{0}-security",)),
    ),
}
ROLLING = ("sid", "unstable", "experimental", "devel")
_ONE_LINE = re.compile(
    r"deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s*(?P<components>.*)"
)


@dataclass(frozen=True, slots=True)
class Release:
    """A distribution: `debian`, `bookworm`."""

    id: str
    codename: str


@dataclass(frozen=True, slots=True)
class Archive:
    """One `deb` entry."""

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str = ""
    """Absolute path of a keyring; empty: the keys apt trusts anyway."""
    trusted: bool = False

    def to_line(self) -> str:
        options = [f"signed-by={self.signed_by}"] if self.signed_by else []
        options += ["trusted=yes"] if self.trusted else []
        words = [
            "deb",
            *([f"[{' '.join(options)}]"] if options else []),
            self.uri,
            self.suite,
            *self.components,
        ]
        return " ".join(words)

    @property
    def local_directory(self) -> Path | None:
        """The host's directory behind a `file:` or `copy:` archive."""
        scheme, _, path = self.uri.partition(":")
        return Path("/" + path.lstrip("/")) if scheme in ("file", "copy") else None


def read_release(text: str) -> Release:
    """Parse os-release(5); unknown fields are empty."""
    values = dict(
        line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#")
    )
    fields = {name: value.strip().strip("\"'") for name, value in values.items()}
    return Release(fields.get("ID", ""), fields.get("VERSION_CODENAME", ""))


def default_archives(release: Release, components: tuple[str, ...] = ("main",)) -> tuple[Archive, ...]:
    """The distribution's public archives: what a layer says, whatever mirror the host uses."""
    rolling = release.codename in ROLLING
    return tuple(
        Archive(uri, suite.format(release.codename), components)
        for uri, suites in _DEFAULT_SUITES.get(release.id, ())
        for suite in suites
        if not rolling or suite == "{0}"
    )


def host_archives(target: Release, root: Path = Path("/")) -> tuple[Archive, ...]:
    """The archives that the host has for its own distribution, for `target`; empty when it is another one."""
    try:
        host = read_release((root / "etc/os-release").read_text())
    except OSError:
        return ()
    if host.id != target.id or not host.codename:
        return ()
    found: list[Archive] = []
    for archive in _all_archives(root):
        name, dash, pocket = archive.suite.partition("-")
        if name != host.codename or pocket not in ("", "updates", "security"):
            continue
        if target.codename in ROLLING and dash:
            continue
        moved = replace(archive, suite=f"{target.codename}{dash}{pocket}")
        if moved not in found:
            found.append(moved)
    return tuple(found)


def acquire_options() -> list[str]:
    """Proxy, certificate and date settings of the host's apt, as lines of apt.conf; empty without apt."""
    try:
        dump = subprocess.run(
            ["apt-config", "dump", "Acquire"], capture_output=True, text=True, timeout=20, check=False
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    wanted = re.compile(
        r"Acquire::(?:(?:https?|ftp)::(?:.*::)?(?:Proxy|Timeout|Verify-Peer|Verify-Host|CaInfo)(?:::.*)?"
        r"|Check-Valid-Until|Check-Date|Max-FutureTime|Retries|ForceIPv[46])(?:::)? \"[^\"]*\";"
    )
    return [line for line in dump.splitlines() if wanted.fullmatch(line)]


def auth_files(root: Path = Path("/")) -> list[Path]:
    """Credentials for archives, if the host has any."""
    parts = root / "etc/apt/auth.conf.d"
    files = [root / "etc/apt/auth.conf", *sorted(parts.glob("*.conf"))]
    return [file for file in files if file.is_file()]


def trusted_keys(root: Path = Path("/")) -> list[Path]:
    """The keys that the host's apt trusts for every archive."""
    found = [root / "etc/apt/trusted.gpg"]
    found += sorted(
        file for file in (root / "etc/apt/trusted.gpg.d").glob("*") if file.suffix in (".gpg", ".asc")
    )
    return [file for file in found if file.is_file() and file.stat().st_size]


def _all_archives(root: Path) -> Iterator[Archive]:
    directory = root / "etc/apt"
    parts = sorted((directory / "sources.list.d").glob("*"))
    for file in [directory / "sources.list", *parts]:
        try:
            text = file.read_text(errors="replace")
        except (OSError, AosError):
            continue
        if file.suffix == ".sources":
            yield from _deb822(text)
        elif file.suffix == ".list":
            yield from _one_line(text)


def _one_line(text: str) -> Iterator[Archive]:
    for line in text.splitlines():
        match = _ONE_LINE.fullmatch(line.partition("#")[0].strip())
        if match is None or match["suite"].endswith("/"):
            continue
        options = dict(
            option.split("=", 1) for option in (match["options"] or "").lower().split() if "=" in option
        )
        original = dict(option.split("=", 1) for option in (match["options"] or "").split() if "=" in option)
        signed_by = next((value for name, value in original.items() if name.lower() == "signed-by"), "")
        yield Archive(
            match["uri"],
            match["suite"],
            tuple(match["components"].split()),
            signed_by if signed_by.startswith("/") else "",
            options.get("trusted") == "yes",
        )


def _deb822(text: str) -> Iterator[Archive]:
    for stanza in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1] in (" ", "\t") and name:
                fields[name] += "\n" + line.strip()
            elif ":" in line:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in (
            "no",
            "false",
        ):
            continue
        signed_by = fields.get("signed-by", "")
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                if not suite.endswith("/"):
                    yield Archive(
                        uri,
                        suite,
                        tuple(fields.get("components", "").split()),
                        signed_by if signed_by.startswith("/") else "",
                        fields.get("trusted", "").lower() == "yes",
                    )
