"""What this host already knows about logins: podman's auth.json, Docker's config.json and credential helpers.

Sources: containers-auth.json(5) for the files, their order and namespaced keys; Docker's documentation of
`docker login` ("Credential stores", "Credential helper protocol") for `credsStore` and `credHelpers`.
Nothing is ever written, and no secret enters a message.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import subprocess
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aos.errors import FailedPrecondition, InvalidArgument, Unavailable
from aos.rootless.user import user_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Credentials", "find_credentials"]

_HELPER_TIME = timedelta(seconds=20)
_HELPER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_DOCKER_HUB = "https://index.docker.io/v1/"


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user and a password, or an identity token that a token server trades for access."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    def basic(self) -> str:
        """The value of an `Authorization: Basic` header (RFC 7617, UTF-8)."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


def find_credentials(
    environ: Mapping[str, str], registry: str, repository: str, *, helper_time: timedelta = _HELPER_TIME
) -> Credentials | None:
    """The credentials for one repository of a registry, or None where nobody logged in.

    Blocks while a credential helper runs. InvalidArgument `credentials-invalid` for a file that cannot be
    understood, FailedPrecondition `credential-helper-failed`, Unavailable `credential-helper-timeout`.
    """
    for file in _files(environ):
        config = _load(file)
        if config is None:
            continue
        found = _from_helper(config, file, registry, environ, helper_time)
        found = found or _from_auths(config, file, registry, repository)
        if found is not None:
            return found
    return None


def _files(environ: Mapping[str, str]) -> Iterator[Path]:
    """The files that exist by convention, in the order in which podman reads them."""
    home = Path(environ.get("HOME") or "/")
    if environ.get("REGISTRY_AUTH_FILE"):
        yield Path(environ["REGISTRY_AUTH_FILE"])
        return
    if environ.get("XDG_RUNTIME_DIR"):
        yield Path(environ["XDG_RUNTIME_DIR"], "containers/auth.json")
    else:
        yield Path(f"/run/containers/{user_id(environ)}/auth.json")
    yield Path(environ.get("XDG_CONFIG_HOME") or home / ".config", "containers/auth.json")
    yield Path(environ.get("DOCKER_CONFIG") or home / ".docker", "config.json")


def _load(file: Path) -> dict[str, Any] | None:
    try:
        config = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _invalid(file, error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise _invalid(file, "not JSON") from error
    if not isinstance(config, dict):
        raise _invalid(file, "not a JSON object")
    return config


def _from_auths(config: dict[str, Any], file: Path, registry: str, repository: str) -> Credentials | None:
    auths = config.get("auths") or {}
    if not isinstance(auths, dict):
        raise _invalid(file, "'auths' is not an object")
    entries = {_host_key(key): entry for key, entry in auths.items()}
    path = f"{registry}/{repository}"
    while path:
        entry = entries.get(path)
        if entry:
            return _decode(entry, file, path)
        path = path.rpartition("/")[0]
    return None


def _host_key(key: str) -> str:
    """`https://host/v1/`, as older Dockers wrote it, names the host alone."""
    if key == _DOCKER_HUB:
        return "docker.io"
    host = re.sub(r"^https?://", "", key)
    if host != key or host.endswith(("/v1/", "/v2/")):
        host = host.partition("/")[0]
    return host.rstrip("/")


def _decode(entry: object, file: Path, key: str) -> Credentials | None:
    if not isinstance(entry, dict):
        raise _invalid(file, f"the entry of {key!r} is not an object")
    token = entry.get("identitytoken") or ""
    username, password = entry.get("username") or "", entry.get("password") or ""
    auth = entry.get("auth") or ""
    if not all(isinstance(value, str) for value in (token, username, password, auth)):
        raise _invalid(file, f"the entry of {key!r} holds something that is not a string")
    if auth:
        try:
            username, separator, password = base64.b64decode(auth, validate=True).decode().partition(":")
        except (binascii.Error, ValueError) as error:
            raise _invalid(file, f"'auth' of {key!r} is not base64") from error
        if not separator:
            raise _invalid(file, f"'auth' of {key!r} is not user:password")
        password = password.rstrip("\0")
    return Credentials(username, password, token) if token or username else None


def _from_helper(
    config: dict[str, Any], file: Path, registry: str, environ: Mapping[str, str], limit: timedelta
) -> Credentials | None:
    helpers = config.get("credHelpers") or {}
    if not isinstance(helpers, dict):
        raise _invalid(file, "'credHelpers' is not an object")
    name = helpers.get(registry) or config.get("credsStore")
    if not name:
        return None
    if not isinstance(name, str) or not _HELPER_NAME.fullmatch(name):
        raise _invalid(file, f"{name!r} is not the name of a credential helper")
    return _ask(f"docker-credential-{name}", file, registry, environ, limit)


def _ask(
    program: str, file: Path, registry: str, environ: Mapping[str, str], limit: timedelta
) -> Credentials | None:
    server = _DOCKER_HUB if registry == "docker.io" else registry
    try:
        answer = subprocess.run(
            [program, "get"],
            input=server.encode(),
            capture_output=True,
            timeout=limit.total_seconds(),
            env=dict(environ),
            check=False,
        )
    except OSError as error:
        raise FailedPrecondition(
            f"{program}: {error.strerror}",
            code="credential-helper-failed",
            hint=f"install it, or remove it from {file}",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise Unavailable(
            f"{program} did not answer within {limit.total_seconds():.0f} s",
            code="credential-helper-timeout",
            hint=f"run `echo {server} | {program} get` by hand; {file} names this helper",
        ) from error
    if answer.returncode:
        words = (answer.stdout + answer.stderr).decode(errors="replace").strip()[:200]
        if "credentials not found" in words:
            return None
        raise FailedPrecondition(
            f"{program} failed: {words or f'exit code {answer.returncode}'}",
            code="credential-helper-failed",
            hint=f"install or repair it, or remove it from {file}",
        )
    try:
        raw = json.loads(answer.stdout)
        username, secret = raw["Username"], raw["Secret"]
        if not isinstance(username, str) or not isinstance(secret, str):
            raise TypeError
    except (ValueError, KeyError, TypeError) as error:
        raise FailedPrecondition(
            f"{program} answered something that is not credentials",
            code="credential-helper-failed",
            hint=f"install or repair it, or remove it from {file}",
        ) from error
    return Credentials(identity_token=secret) if username == "<token>" else Credentials(username, secret)


def _invalid(file: Path, what: str) -> InvalidArgument:
    return InvalidArgument(
        f"{file}: cannot read credentials: {what}",
        code="credentials-invalid",
        hint="correct the file, or name another with REGISTRY_AUTH_FILE",
        path=str(file),
    )
