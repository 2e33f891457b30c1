"""One blob between a registry and the content store: download with resume, upload whole or in chunks.

Endpoints, status codes and headers are those of the OCI distribution specification 1.1 ("Pulling blobs",
"Pushing a blob monolithically", "Pushing a blob in chunks").
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import httpx

from aos.errors import AosError, DataLoss, FailedPrecondition, Unavailable
from aos.registry.problems import from_transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from aos.content.protocol import Blobs
    from aos.oci.descriptor import Descriptor
    from aos.registry.session import Session

__all__ = ["download", "upload"]

_PIECE = 1 << 20
_CHUNK = 16 << 20
_ATTEMPTS = 4
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(?:\d{1,18}|\*)")
_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,18})")

_P = ParamSpec("_P")
_T = TypeVar("_T")


async def download(session: Session, descriptor: Descriptor, blobs: Blobs) -> None:
    """Store the blob, verified while it streams. A broken connection goes on where it stopped, as long as
    there is progress.

    DataLoss `digest-mismatch`, `blob-truncated` or `blob-too-long`; Unavailable when connections keep breaking.
    """
    url = f"blobs/{descriptor.digest}"
    received = failures = 0
    with blobs.writer() as writer:
        while received < descriptor.size:
            before, broken, pending = received, None, bytearray()
            headers = {"Range": f"bytes={received}-"} if received else {}
            try:
                async with session.stream("GET", url, headers=headers, accept=(200, 206, 416)) as response:
                    if response.status_code == 416:  # its copy ends here
                        raise _too_short(session, descriptor, received)
                    skip = received - _start(response, session)
                    async for piece in response.aiter_raw():
                        fresh, skip = piece[skip:], max(0, skip - len(piece))
                        received += len(fresh)
                        if received > descriptor.size:
                            raise _too_long(session, descriptor)
                        pending += fresh
                        if len(pending) >= _PIECE:
                            await in_thread(writer.write, bytes(pending))
                            pending.clear()
            except httpx.TransportError as error:
                broken = error
            await in_thread(writer.write, bytes(pending))
            if received == descriptor.size:
                break
            failures = failures + 1 if received == before else 1
            if failures == _ATTEMPTS:
                raise _given_up(session, descriptor, received, broken)
            await session.pause(failures)
        await in_thread(writer.commit, descriptor.digest, descriptor.size)


def _start(response: httpx.Response, session: Session) -> int:
    """Which byte of the blob the body begins with; 0 when the registry ignored the range."""
    if response.status_code == 200:
        return 0
    found = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
    asked = response.request.headers.get("range", "bytes=0-")
    if found is None or f"bytes={found[1]}-" != asked:
        raise Unavailable(
            f"{session.what}: the registry answered another range than was asked for",
            code="registry-unavailable",
        )
    return int(found[1])


def _too_long(session: Session, descriptor: Descriptor) -> DataLoss:
    return DataLoss(
        f"{session.what}: {descriptor.digest} is longer than the {descriptor.size} bytes announced",
        code="blob-too-long",
        hint="the registry's copy is damaged: push the package again",
        digest=descriptor.digest,
    )


def _given_up(session: Session, descriptor: Descriptor, received: int, broken: Exception | None) -> AosError:
    if broken is not None:
        return from_transport(broken, session.what, session.registry)
    return _too_short(session, descriptor, received)


def _too_short(session: Session, descriptor: Descriptor, received: int) -> DataLoss:
    return DataLoss(
        f"{session.what}: {descriptor.digest} ends after {received} of {descriptor.size} bytes",
        code="blob-truncated",
        hint="the registry's copy is damaged: push the package again",
        digest=descriptor.digest,
    )


async def upload(session: Session, descriptor: Descriptor, blobs: Blobs) -> bool:
    """Make sure that the registry has the blob; whether it had to be sent.

    Sent in one request; in chunks, resuming, where a registry or a proxy before it refuses that size or the
    connection breaks on something large."""
    found = await session.ask("HEAD", f"blobs/{descriptor.digest}", accept=(200, 404))
    if found.status == 200:
        return False
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            await _send_whole(session, descriptor, blobs)
            return True
        except FailedPrecondition as error:
            if error.subject.get("status") != 413 or descriptor.size <= _CHUNK:
                raise
        except Unavailable:
            if attempt == _ATTEMPTS:
                raise
        if descriptor.size > _CHUNK:
            await _send_chunks(session, descriptor, blobs)
            return True
        await session.pause(attempt)
    return True


async def _send_whole(session: Session, descriptor: Descriptor, blobs: Blobs) -> None:
    begun = await session.ask("POST", "blobs/uploads/", headers={"Content-Length": "0"}, accept=(202,))
    await session.ask(
        "PUT",
        _location(session, begun.headers, begun.url).copy_merge_params({"digest": descriptor.digest}),
        headers={"Content-Type": "application/octet-stream", "Content-Length": str(descriptor.size)},
        content=lambda: _pieces(blobs, descriptor, _PIECE),
        accept=(201, 204),
        retry=False,
    )


async def _send_chunks(session: Session, descriptor: Descriptor, blobs: Blobs) -> None:
    begun = await session.ask("POST", "blobs/uploads/", headers={"Content-Length": "0"}, accept=(202,))
    location = _location(session, begun.headers, begun.url)
    least = begun.headers.get("oci-chunk-min-length", "")
    size = max(_CHUNK, int(least) if least.isdecimal() and len(least) < 12 else 0)
    offset = 0
    async for chunk in _pieces(blobs, descriptor, size):
        end, failures = offset + len(chunk), 0
        while offset < end:
            rest = chunk[len(chunk) - (end - offset) :]
            headers = {"Content-Type": "application/octet-stream", "Content-Range": f"{offset}-{end - 1}"}
            try:
                answer = await session.ask(
                    "PATCH", location, headers=headers, content=rest, accept=(202, 204), retry=False
                )
                offset = end
            except Unavailable:
                failures += 1
                if failures == _ATTEMPTS:
                    raise
                await session.pause(failures)
                answer = await session.ask("GET", location, accept=(204,))
                kept = _RANGE.fullmatch(answer.headers.get("range", ""))
                offset = min(max(int(kept[1]) + 1 if kept else 0, end - len(chunk)), end)
            location = _location(session, answer.headers, answer.url)
    await session.ask(
        "PUT",
        location.copy_merge_params({"digest": descriptor.digest}),
        headers={"Content-Length": "0"},
        accept=(201, 204),
        retry=False,
    )


def _location(session: Session, headers: httpx.Headers, url: httpx.URL) -> httpx.URL:
    if "location" not in headers:
        raise Unavailable(
            f"{session.what}: the registry opened an upload without a Location", code="registry-unavailable"
        )
    return session.resolve(headers["location"], url)


async def _pieces(blobs: Blobs, descriptor: Descriptor, size: int) -> AsyncIterator[bytes]:
    """The blob in pieces of `size` bytes, the last one shorter; DataLoss at the end if it is not itself."""
    with blobs.open(descriptor.digest) as stream:
        while piece := await in_thread(stream.read, size):
            yield piece


async def in_thread(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Run blocking work in a thread; a cancellation waits for it, so that what it uses can be closed after."""
    task = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
