"""The distribution client: push and pull packages to and from any OCI registry over HTTP(S).

Protocol: OCI distribution specification 1.1. Everything a registry says is checked: digests, sizes, media
types, and the whole package before `pull` returns it.
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from aos import __version__
from aos.errors import DataLoss, FailedPrecondition, InvalidArgument
from aos.oci.digest import Digest, digest_of
from aos.oci.index import Index, host_platform, select
from aos.package.documents import DOCUMENT_LIMIT, IMAGE_MEDIA_TYPES, is_index, media_type_of, parse_manifest
from aos.package.load import load_package
from aos.registry.credentials import find_credentials
from aos.registry.problems import from_transport
from aos.registry.session import Session, is_loopback
from aos.registry.transfer import download, in_thread, upload

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping

    from aos.content.leases import Lease
    from aos.content.store import ContentStore
    from aos.oci.descriptor import Descriptor
    from aos.oci.index import Platform
    from aos.oci.reference import Reference
    from aos.package.facts import Package

__all__ = ["DistributionClient"]

_PARALLEL = 4
_TIMEOUT = httpx.Timeout(30.0, connect=10.0, pool=None)
_HUB, _HUB_HOST = "docker.io", "registry-1.docker.io"
# Where distributions keep the CAs they trust, for interpreters whose OpenSSL was built to look elsewhere.
_CA_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


class DistributionClient:
    """`async with DistributionClient(content, environ) as client`; one client serves many references.

    `report` is told of each blob what happened to it: `exists`, `pulled` or `pushed`.
    """

    def __init__(
        self,
        content: ContentStore,
        environ: Mapping[str, str],
        *,
        plain_http: bool = False,
        report: Callable[[Descriptor, str], None] | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._content = content
        self._environ = environ
        self._plain_http = plain_http
        self._report = report or (lambda descriptor, how: None)
        self._sleep = sleep
        self._http = httpx.AsyncClient(
            verify=_trust(environ),
            timeout=_TIMEOUT,
            limits=httpx.Limits(max_connections=2 * _PARALLEL),
            headers={"User-Agent": f"aos/{__version__}", "Accept": "*/*", "Accept-Encoding": "identity"},
            mounts=dict.fromkeys(("all://localhost", "all://127.0.0.1", "all://[::1]")),
        )

    async def __aenter__(self) -> DistributionClient:
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *exception: Any) -> None:
        await self._http.__aexit__(*exception)

    async def push(self, reference: Reference, package: Package) -> Digest:
        """Send what the registry lacks, the manifest last; the digest under which it is there now."""
        blobs = self._content.blobs
        session = await self._session(reference, "pull,push", "push")
        data = await in_thread(blobs.read, package.manifest_digest)
        manifest = parse_manifest(data)

        async def send(descriptor: Descriptor) -> None:
            self._report(descriptor, "pushed" if await upload(session, descriptor, blobs) else "exists")

        await _each(send, _unique([manifest.config, *manifest.layers]))
        name = reference.digest or reference.tag
        answer = await session.ask(
            "PUT",
            f"manifests/{name}",
            headers={"Content-Type": media_type_of(data)},
            content=data,
            accept=(201, 202, 204),
        )
        there = answer.headers.get("docker-content-digest", package.manifest_digest)
        if there != package.manifest_digest:
            raise DataLoss(
                f"{session.what}: the registry stored {there:.80} instead of {package.manifest_digest}",
                code="digest-mismatch",
            )
        return package.manifest_digest

    async def pull(self, reference: Reference, lease: Lease, *, platform: Platform | None = None) -> Package:
        """Fetch what is missing here, verified; the lease holds it until the caller has tagged it.

        Of an index, this platform's image. Errors: `registry.problems`, DataLoss for content that is not what
        its digest or size says, those of `load_package`."""
        session = await self._session(reference, "pull", "pull")
        platform = platform or host_platform()
        digest, data = await self._manifest(session, reference.digest or reference.tag)
        if is_index(data):
            chosen = select(Index.from_bytes(data), platform)
            digest, data = await self._manifest(session, chosen.digest)
        manifest = parse_manifest(data)
        await in_thread(lease.add, digest)
        await in_thread(self._content.blobs.put, data)

        async def fetch(descriptor: Descriptor) -> None:
            await in_thread(lease.add, descriptor.digest)
            exists = await in_thread(self._content.blobs.exists, descriptor.digest)
            if not exists:
                await download(session, descriptor, self._content.blobs)
            self._report(descriptor, "exists" if exists else "pulled")

        await _each(fetch, _unique([manifest.config, *manifest.layers]))
        return await in_thread(load_package, self._content.blobs, digest, platform=platform)

    async def _manifest(self, session: Session, name: str) -> tuple[Digest, bytes]:
        answer = await session.ask(
            "GET", f"manifests/{name}", headers={"Accept": ", ".join(IMAGE_MEDIA_TYPES)}, limit=DOCUMENT_LIMIT
        )
        digest = digest_of(answer.body)
        announced = answer.headers.get("docker-content-digest", "")
        expected = name if name.startswith("sha256:") else announced
        if not expected.startswith("sha256:"):
            expected = digest
        if digest != expected:
            raise DataLoss(
                f"{session.what}: the manifest's digest is {digest}, not {expected:.80}",
                code="digest-mismatch",
                hint="do not trust this registry's copy",
                expected=expected,
                actual=digest,
            )
        return digest, answer.body

    async def _session(self, reference: Reference, actions: str, verb: str) -> Session:
        registry, repository = reference.registry, reference.repository
        if not registry:
            raise InvalidArgument(
                f"{reference} names no registry",
                code="registry-missing",
                hint="write the registry's host first, as in registry.example.org/team/agent:1.0",
                reference=str(reference),
            )
        host = registry
        if registry == _HUB:
            host, repository = _HUB_HOST, repository if "/" in repository else f"library/{repository}"
        try:
            base = httpx.URL(f"https://{host}/")
        except httpx.InvalidURL as error:
            raise InvalidArgument(f"{registry!r} is not a host", code="reference-invalid") from error
        what = f"{verb} {reference}"
        if self._plain_http or (is_loopback(base.host) and not await self._speaks_tls(base, what, registry)):
            base = httpx.URL(f"http://{host}/")
        return Session(
            self._http,
            base,
            registry=registry,
            repository=repository,
            actions=actions,
            what=what,
            credentials=lambda: find_credentials(self._environ, registry, repository),
            plain_http=self._plain_http,
            sleep=self._sleep,
        )

    async def _speaks_tls(self, base: httpx.URL, what: str, registry: str) -> bool:
        """Whether a registry on loopback must be spoken to over TLS: what answers plain HTTP need not be."""
        try:
            async with self._http.stream("GET", base.copy_with(scheme="http", path="/v2/")) as answer:
                return answer.status_code == 400
        except httpx.ConnectError as error:
            raise from_transport(error, what, registry) from error
        except httpx.TransportError:
            return True


async def _each(
    function: Callable[[Descriptor], Coroutine[Any, Any, None]], descriptors: Iterable[Descriptor]
) -> None:
    """Call the function for every descriptor, a few at a time; the first error stops the others."""
    gate = asyncio.Semaphore(_PARALLEL)

    async def one(descriptor: Descriptor) -> None:
        async with gate:
            await function(descriptor)

    try:
        async with asyncio.TaskGroup() as group:
            for descriptor in descriptors:
                group.create_task(one(descriptor))
    except ExceptionGroup as failures:
        first: Exception = failures
        while isinstance(first, ExceptionGroup):
            first = first.exceptions[0]
        raise first from first.__cause__


def _unique(descriptors: list[Descriptor]) -> list[Descriptor]:
    return list({descriptor.digest: descriptor for descriptor in descriptors}.values())


def _trust(environ: Mapping[str, str]) -> ssl.SSLContext:
    """The CAs of this host; `SSL_CERT_FILE` and `SSL_CERT_DIR` say otherwise."""
    file, directory = environ.get("SSL_CERT_FILE"), environ.get("SSL_CERT_DIR")
    try:
        if file or directory:
            return ssl.create_default_context(cafile=file, capath=directory)
        context = ssl.create_default_context()
        paths = ssl.get_default_verify_paths()
        if not paths.cafile and not (paths.capath and any(Path(paths.capath).iterdir())):
            for bundle in _CA_BUNDLES:
                if Path(bundle).exists():
                    context.load_verify_locations(bundle)
                    break
        return context
    except (OSError, ssl.SSLError) as error:
        raise FailedPrecondition(
            f"cannot read the trusted CAs: {error}",
            code="registry-tls",
            hint="correct SSL_CERT_FILE, or unset it",
        ) from error
