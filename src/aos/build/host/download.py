"""Download files of package indexes, with what the host says of proxies, certificates and credentials."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aos.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import httpx

    from aos.build.host.pip import PipSettings

__all__ = ["download"]

_PARALLEL = 8
_TRIES = 3
_CHUNK = 1 << 20


def download(files: Sequence[tuple[str, Path]], settings: PipSettings) -> None:
    """Write each address, or path of this host, to its path. Nothing is verified here.

    Raise Unavailable (`download-failed`)."""
    import ssl

    import httpx

    environ = settings.environment
    certificates = settings.certificates
    context = ssl.create_default_context(cafile=str(certificates) if certificates else None)
    timeout = httpx.Timeout(float(environ.get("UV_HTTP_TIMEOUT", "60")), pool=None)
    with (
        httpx.Client(
            follow_redirects=True, timeout=timeout, verify=context, auth=_credentials(settings)
        ) as client,
        ThreadPoolExecutor(_PARALLEL) as pool,
    ):
        list(pool.map(lambda one: _one(client, *one), files))


def _one(client: httpx.Client, url: str, target: Path) -> None:
    import httpx

    if url.startswith("/"):
        try:
            shutil.copyfile(url, target)
        except OSError as error:
            raise _failed(url, error.strerror or str(error)) from error
        return
    for again in reversed(range(_TRIES)):
        try:
            with client.stream("GET", url) as response, target.open("wb") as file:
                response.raise_for_status()
                for chunk in response.iter_bytes(_CHUNK):
                    file.write(chunk)
            return
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            if not again or status < 500:
                raise _failed(url, f"the server answered {status}") from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            if not again:
                raise _failed(url, str(error) or type(error).__name__) from error


def _credentials(settings: PipSettings) -> httpx.Auth | None:
    """Of the index of the same host (in its address, or `UV_INDEX_<NAME>_…`), else of .netrc."""
    import httpx

    known: dict[str, tuple[str, str]] = {}
    for index in settings.indexes:
        parts = urlsplit(str(index.get("url", "")))
        name = str(index.get("name", "")).upper().replace("-", "_").replace(".", "_")
        user = settings.environment.get(f"UV_INDEX_{name}_USERNAME") or parts.username
        if user and parts.hostname:
            password = settings.environment.get(f"UV_INDEX_{name}_PASSWORD") or parts.password
            known[parts.hostname] = (user, password or "")
    netrc = httpx.NetRCAuth(str(settings.netrc)) if settings.netrc else None

    class Auth(httpx.Auth):
        def auth_flow(self, request: httpx.Request):  # type: ignore[no-untyped-def]
            if request.url.host in known:
                yield from httpx.BasicAuth(*known[request.url.host]).auth_flow(request)
            elif netrc is not None:
                yield from netrc.auth_flow(request)
            else:
                yield request

    return Auth()


def _failed(url: str, why: str) -> Unavailable:
    shown = urlsplit(url)
    return Unavailable(
        f"cannot download {shown.hostname or ''}{shown.path}: {why}",
        code="download-failed",
        hint="try again; what was downloaded before is kept",
    )
