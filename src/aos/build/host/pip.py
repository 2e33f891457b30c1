"""Where the host gets Python packages from: pip's and uv's settings, as one uv configuration for a sandbox.

Sources: pip's documentation "Configuration" (files, `PIP_<OPTION>`), uv's reference "Configuration files" and
"Environment variables". uv's own settings win over pip's, the environment over files.
"""

from __future__ import annotations

import configparser
import json
import shlex
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from aos.build.host.network import proxy_environment
from aos.runtime.spec import Mount

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["PipSettings", "read_pip_settings"]

_PASSED = (
    "UV_INDEX_",
    "UV_HTTP_TIMEOUT",
    "UV_NATIVE_TLS",
    "UV_SYSTEM_CERTS",
    "UV_CONCURRENT_",
    "UV_INDEX_STRATEGY",
)
_NOT_PASSED = ("UV_INDEX_URL",)
_CERTIFICATES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_INDEX_KEYS = ("name", "url", "default", "explicit", "format", "authenticate")
_TRUE = ("1", "true", "yes", "on", "t", "y")


@dataclass(slots=True)
class PipSettings:
    """What a sandbox must be given so that uv in it reaches what the host reaches."""

    indexes: list[dict[str, object]] = field(default_factory=list)
    """Tables of uv's `[[index]]`, the first with the highest priority."""
    find_links: list[str] = field(default_factory=list)
    no_index: bool = False
    insecure_hosts: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    mounts: list[Mount] = field(default_factory=list)
    certificates: Path | None = None
    """On the host: authorities to trust in the place of its own."""
    netrc: Path | None = None

    def to_toml(self) -> str:
        """The `uv.toml` of the sandbox."""
        lines = []
        if self.no_index:
            lines.append("no-index = true")
        if self.find_links:
            lines.append(f"find-links = {json.dumps(self.find_links)}")
        if self.insecure_hosts:
            lines.append(f"allow-insecure-host = {json.dumps(self.insecure_hosts)}")
        for index in self.indexes:
            lines.append("[[index]]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in index.items()]
        return "\n".join(lines) + "\n"


def read_pip_settings(environ: Mapping[str, str], place: str, *, root: Path = Path("/")) -> PipSettings:
    """Read the host's settings. What they name on the host's disk is mounted below `place`.

    A file that cannot be read or parsed is passed over: pip and uv on the host say what is wrong with it.
    """
    uv = _uv_configuration(environ, root)
    pip = _pip_configuration(environ, root)
    found = PipSettings()
    _find_indexes(found, environ, uv, pip)
    links = (
        _words(environ.get("UV_FIND_LINKS"), ",")
        or _strings(uv.get("find-links"))
        or _words(environ.get("PIP_FIND_LINKS"))
        or _words(pip.get("find-links"))
    )
    found.find_links = links
    flags = (environ.get("UV_NO_INDEX"), uv.get("no-index"), environ.get("PIP_NO_INDEX"), pip.get("no-index"))
    found.no_index = next((_is_true(flag) for flag in flags if flag is not None), False)
    found.insecure_hosts = (
        _words(environ.get("UV_INSECURE_HOST"))
        or _strings(uv.get("allow-insecure-host"))
        or _words(environ.get("PIP_TRUSTED_HOST"))
        or _words(pip.get("trusted-host"))
    )
    _find_environment(found, environ, pip)
    _mount_local(found, place)
    _mount_certificates(found, environ, pip, place, root)
    return found


def _find_indexes(
    found: PipSettings, environ: Mapping[str, str], uv: Mapping[str, Any], pip: Mapping[str, str]
) -> None:
    extra = [_named(text) for text in _words(environ.get("UV_INDEX"))]
    extra += [{"url": url} for url in _words(environ.get("UV_EXTRA_INDEX_URL"))]
    tables = [
        {key: table[key] for key in _INDEX_KEYS if key in table}
        for table in uv.get("index") or ()
        if isinstance(table, dict) and isinstance(table.get("url"), str)
    ]
    extra += [table for table in tables if not table.get("default")]
    extra += [{"url": url} for url in _strings(uv.get("extra-index-url"))]
    default = (
        environ.get("UV_DEFAULT_INDEX")
        or environ.get("UV_INDEX_URL")
        or next((str(table["url"]) for table in tables if table.get("default")), "")
        or str(uv.get("index-url") or "")
        or environ.get("PIP_INDEX_URL")
        or pip.get("index-url", "")
    )
    if not extra:
        words = _words(environ.get("PIP_EXTRA_INDEX_URL")) or _words(pip.get("extra-index-url"))
        extra = [{"url": url} for url in words]
    found.indexes = extra
    if default:
        found.indexes.append(_named(default) | {"default": True})


def _find_environment(found: PipSettings, environ: Mapping[str, str], pip: Mapping[str, str]) -> None:
    for name, value in sorted(environ.items()):
        if name.startswith(_PASSED) and name not in _NOT_PASSED:
            found.environment[name] = value
    timeout = environ.get("PIP_DEFAULT_TIMEOUT") or environ.get("PIP_TIMEOUT") or pip.get("timeout")
    if timeout and timeout.isdigit():
        found.environment.setdefault("UV_HTTP_TIMEOUT", timeout)
    proxy = environ.get("PIP_PROXY") or pip.get("proxy")
    if proxy:
        found.environment |= {"http_proxy": proxy, "https_proxy": proxy}
    found.environment |= dict(proxy_environment(environ))


def _mount_local(found: PipSettings, place: str) -> None:
    """Mount directories of the host that stand for an index or hold files, and name them as the sandbox will."""

    def inside(text: str) -> str:
        path = _local_path(text)
        if path is None:
            return text
        target = f"{place}/{len(found.mounts)}"
        if not path.exists():
            return text
        found.mounts.append(Mount("bind", target, path.resolve(), read_only=True))
        return f"file://{target}" if "://" in text else target

    found.find_links = [inside(text) for text in found.find_links]
    for index in found.indexes:
        index["url"] = inside(str(index["url"]))


def _mount_certificates(
    found: PipSettings, environ: Mapping[str, str], pip: Mapping[str, str], place: str, root: Path
) -> None:
    names = [environ.get(name) for name in _CERTIFICATES] + [pip.get("cert")]
    for name in names:
        if name and (root / name.lstrip("/")).is_file():
            found.certificates = (root / name.lstrip("/")).resolve()
            found.mounts.append(Mount("bind", f"{place}/ca.pem", found.certificates, read_only=True))
            found.environment["SSL_CERT_FILE"] = f"{place}/ca.pem"
            break
    netrc = Path(environ.get("NETRC") or f"{environ.get('HOME') or '/root'}/.netrc")
    if netrc.is_file():
        found.netrc = netrc.resolve()
        found.mounts.append(Mount("bind", f"{place}/netrc", found.netrc, read_only=True))
        found.environment["NETRC"] = f"{place}/netrc"


def _uv_configuration(environ: Mapping[str, str], root: Path) -> dict[str, Any]:
    """The first configuration file of uv that exists; its `pip` table over its top level."""
    if _is_true(environ.get("UV_NO_CONFIG")):
        return {}
    home = Path(environ.get("XDG_CONFIG_HOME") or f"{environ.get('HOME') or '/root'}/.config")
    files = [home / "uv/uv.toml", root / "etc/xdg/uv/uv.toml", root / "etc/uv/uv.toml"]
    if environ.get("UV_CONFIG_FILE"):
        files = [Path(environ["UV_CONFIG_FILE"])]
    for file in files:
        try:
            raw = tomllib.loads(file.read_text())
        except (OSError, ValueError):
            continue
        table = raw.get("pip")
        return raw | (table if isinstance(table, dict) else {})
    return {}


def _pip_configuration(environ: Mapping[str, str], root: Path) -> dict[str, str]:
    """`[global]` and `[install]` of all of pip's configuration files, the later winning."""
    named = environ.get("PIP_CONFIG_FILE")
    if named == "/dev/null":
        return {}
    home = Path(environ.get("HOME") or "/root")
    user = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    files = [
        root / "etc/xdg/pip/pip.conf",
        root / "etc/pip.conf",
        home / ".pip/pip.conf",
        user / "pip/pip.conf",
    ]
    values: dict[str, str] = {}
    for file in [*files, *([Path(named)] if named else [])]:
        parser = configparser.RawConfigParser()
        try:
            parser.read_string(file.read_text())
        except (OSError, ValueError, configparser.Error):
            continue
        for section in ("global", "install"):
            if parser.has_section(section):
                values |= {key.replace("_", "-"): value for key, value in parser.items(section)}
    return values


def _named(text: str) -> dict[str, object]:
    """uv's `name=url`, or a bare url."""
    name, equals, url = text.partition("=")
    if equals and "/" not in name and ":" not in name:
        return {"name": name, "url": url}
    return {"url": text}


def _local_path(text: str) -> Path | None:
    if text.startswith("file:"):
        return Path(unquote(urlsplit(text).path))
    return Path(text) if text.startswith("/") else None


def _words(text: str | None, separators: str = "") -> list[str]:
    if not text:
        return []
    for separator in separators:
        text = text.replace(separator, " ")
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    items: Iterable[object] = value if isinstance(value, list) else ()
    return [item for item in items if isinstance(item, str)]


def _is_true(value: object) -> bool:
    return value is True or (isinstance(value, str) and value.strip().lower() in _TRUE)
