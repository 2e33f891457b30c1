"""Requests about one repository of one registry: authorized, redirected, retried, bounded.

Sources: the OCI distribution specification 1.1; "Token Authentication Specification" of the distribution
project for the Bearer flow; RFC 6749 section 6 for refresh tokens. Credentials go only to the registry's own
origin (Basic) or to the token server that it names (Bearer), and over plain HTTP only on loopback or when the
caller allows it. A redirect to another origin carries no authorization.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from aos.errors import FailedPrecondition, Unauthenticated, Unavailable
from aos.registry.challenge import Challenge, parse_challenges
from aos.registry.problems import from_status, from_transport, is_certificate_problem, login_hint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from aos.registry.credentials import Credentials

__all__ = ["ERROR_BODY_LIMIT", "Answer", "Session", "is_loopback"]

ERROR_BODY_LIMIT = 64 * 1024
_TOKEN_LIMIT = 1024 * 1024
_ATTEMPTS = 4
_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 30.0
_REDIRECTS = 5
_CLIENT_ID = "aos"


@dataclass(frozen=True, slots=True)
class Answer:
    """A response whose body was read whole."""

    status: int
    headers: httpx.Headers
    body: bytes
    url: httpx.URL


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only be this host."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Session:
    """One repository's conversation; safe for many tasks of one event loop."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        base: httpx.URL,
        *,
        registry: str,
        repository: str,
        actions: str,
        what: str,
        credentials: Callable[[], Credentials | None],
        plain_http: bool = False,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._http = http
        self._base = base
        self.registry = registry
        self._scope = f"repository:{repository}:{actions}"
        self.what = what
        self._credentials = credentials
        self._plain_http = plain_http
        self._sleep = sleep
        self._authorization = ""
        self._authorizing = asyncio.Lock()
        self.repository_url = base.join(f"/v2/{repository}/")

    async def ask(
        self,
        method: str,
        url: httpx.URL | str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | Callable[[], AsyncIterator[bytes]] | None = None,
        accept: tuple[int, ...] = (200,),
        limit: int = ERROR_BODY_LIMIT,
        retry: bool = True,
    ) -> Answer:
        """Send one request and read its answer, at most `limit` bytes of body (Unavailable beyond).

        A status outside `accept` raises what `problems` makes of it."""
        async with self.stream(
            method, url, headers=headers, content=content, accept=accept, retry=retry
        ) as response:
            try:
                body = b"" if method == "HEAD" else await _bounded(response, limit, self.what, self.registry)
            except httpx.TransportError as error:
                raise from_transport(error, self.what, self.registry) from error
            return Answer(response.status_code, response.headers, body, response.url)

    @contextlib.asynccontextmanager
    async def stream(
        self,
        method: str,
        url: httpx.URL | str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | Callable[[], AsyncIterator[bytes]] | None = None,
        accept: tuple[int, ...] = (200,),
        retry: bool = True,
    ) -> AsyncIterator[httpx.Response]:
        """Like `ask`, with the body left to be read (`aiter_raw`); what breaks then is the caller's to retry."""
        attempts = _ATTEMPTS if retry else 1
        for attempt in range(1, attempts + 1):
            try:
                response = await self._authorized(
                    method, self.repository_url.join(url), dict(headers or {}), content
                )
            except (httpx.TransportError, httpx.DecodingError) as error:
                if attempt == attempts or is_certificate_problem(error):
                    raise from_transport(error, self.what, self.registry) from error
                await self.pause(attempt)
                continue
            if attempt < attempts and (response.status_code == 429 or response.status_code >= 500):
                await response.aclose()
                await self.pause(attempt, response.headers.get("retry-after", ""))
                continue
            try:
                if response.status_code not in accept:
                    raise await self._problem(response)
                yield response
            finally:
                await response.aclose()
            return

    async def pause(self, attempt: int, retry_after: str = "") -> None:
        """Wait before another attempt: twice as long each time, or as the registry asks (up to 30 s)."""
        seconds = float(retry_after) if retry_after.isdecimal() else _FIRST_PAUSE * 2 ** (attempt - 1)
        await self._sleep(min(seconds, _LONGEST_PAUSE))

    async def _problem(self, response: httpx.Response) -> Exception:
        body = b""
        with contextlib.suppress(httpx.TransportError, Unavailable):
            body = await _bounded(response, ERROR_BODY_LIMIT, self.what, self.registry)
        return from_status(response.status_code, body, self.what, self.registry)

    async def _authorized(
        self, method: str, url: httpx.URL, headers: dict[str, str], content: Any
    ) -> httpx.Response:
        """One request; a challenge is answered once."""
        used = self._authorization
        response = await self._redirected(method, url, headers, content, used)
        if response.status_code != 401 or not self._is_ours(response.url):
            return response
        challenges = [
            c for value in response.headers.get_list("www-authenticate") for c in parse_challenges(value)
        ]
        await response.aclose()
        async with self._authorizing:
            if self._authorization == used:
                self._authorization = await self._answer(challenges)
        response = await self._redirected(method, url, headers, content, self._authorization)
        if response.status_code == 401:
            await response.aclose()
            raise self._refused("the credentials were not accepted")
        return response

    async def _redirected(
        self, method: str, url: httpx.URL, headers: dict[str, str], content: Any, authorization: str
    ) -> httpx.Response:
        for _ in range(_REDIRECTS):
            self._must_be_safe(url)
            request = self._http.build_request(
                method, url, headers=headers, content=content() if callable(content) else content
            )
            if authorization and self._is_ours(url):
                request.headers["Authorization"] = authorization
            response = await self._http.send(request, stream=True)
            if response.status_code not in (301, 302, 303, 307, 308) or "location" not in response.headers:
                return response
            await response.aclose()
            url = self.resolve(response.headers["location"], url)
        raise Unavailable(f"{self.what}: {self.registry} redirects in circles", code="registry-unavailable")

    def resolve(self, location: str, url: httpx.URL) -> httpx.URL:
        """A `Location` of the registry, relative to the request's URL."""
        try:
            return url.join(location)
        except httpx.InvalidURL as error:
            raise Unavailable(
                f"{self.what}: {self.registry} answered with a broken Location", code="registry-unavailable"
            ) from error

    def _is_ours(self, url: httpx.URL) -> bool:
        return (url.scheme, url.host, url.port) == (self._base.scheme, self._base.host, self._base.port)

    def _must_be_safe(self, url: httpx.URL) -> None:
        """Encrypted, or plain where the caller allows it or it stays on this host as the registry does."""
        local = is_loopback(url.host) and is_loopback(self._base.host)
        if url.scheme == "https" or (url.scheme == "http" and (self._plain_http or local)):
            return
        raise FailedPrecondition(
            f"{self.what}: {self.registry} leads to {url.scheme}://{url.host}, which is not encrypted",
            code="registry-not-encrypted",
            hint="if you trust the network, use --plain-http",
            registry=self.registry,
        )

    async def _answer(self, challenges: list[Challenge]) -> str:
        """The value of an `Authorization` header that meets one of the challenges."""
        credentials = await asyncio.to_thread(self._credentials)
        for challenge in challenges:
            if challenge.scheme == "bearer" and challenge.parameters.get("realm"):
                return "Bearer " + await self._token(challenge, credentials)
        if any(challenge.scheme == "basic" for challenge in challenges):
            if credentials is None or not credentials.username:
                raise self._refused("a login is needed")
            return credentials.basic()
        raise self._refused("it asks for an authentication that AOS does not know")

    async def _token(self, challenge: Challenge, credentials: Credentials | None) -> str:
        try:
            realm = httpx.URL(challenge.parameters["realm"])
        except httpx.InvalidURL as error:
            raise self._refused("it names no usable token server") from error
        self._must_be_safe(realm)
        scopes = list(dict.fromkeys([self._scope, *challenge.parameters.get("scope", "").split()]))
        service = challenge.parameters.get("service", "")
        if credentials is not None and credentials.identity_token:
            form = {
                "grant_type": "refresh_token",
                "service": service,
                "client_id": _CLIENT_ID,
                "scope": " ".join(scopes),
                "refresh_token": credentials.identity_token,
            }
            request = self._http.build_request("POST", realm, data=form)
        else:
            query = [("service", service)] if service else []
            realm = realm.copy_merge_params(
                httpx.QueryParams([*query, *(("scope", scope) for scope in scopes)])
            )
            request = self._http.build_request("GET", realm)
            if credentials is not None:
                request.headers["Authorization"] = credentials.basic()
        response = await self._http.send(request, stream=True)
        try:
            body = await _bounded(response, _TOKEN_LIMIT, self.what, self.registry)
        finally:
            await response.aclose()
        if response.status_code in (400, 401, 403):
            raise self._refused("the credentials were not accepted" if credentials else "a login is needed")
        if response.status_code != 200:
            raise from_status(response.status_code, body, self.what, realm.host)
        try:
            answer = json.loads(body)
            token = answer.get("token") or answer["access_token"]
        except (ValueError, KeyError, AttributeError, RecursionError):
            token = None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise Unavailable(
                f"{self.what}: the token server {realm.host} answered without a token",
                code="registry-unavailable",
            )
        return token

    def _refused(self, why: str) -> Unauthenticated:
        return Unauthenticated(
            f"{self.what}: {self.registry} refuses: {why}",
            code="registry-unauthenticated",
            hint=login_hint(self.registry),
            registry=self.registry,
        )


async def _bounded(response: httpx.Response, limit: int, what: str, registry: str) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > limit:
            raise Unavailable(
                f"{what}: {registry} answered with more than {limit} bytes",
                code="registry-answer-too-large",
                registry=registry,
            )
    return bytes(body)
