"""The distribution client against a registry that misbehaves, over real sockets."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import socket
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from aos.content.store import ContentStore
from aos.errors import (
    AosError,
    DataLoss,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)
from aos.oci.digest import digest_of
from aos.oci.index import Platform
from aos.oci.reference import parse_reference
from aos.registry import transfer
from aos.registry.client import DistributionClient
from fix_registry import Asked, StubRegistry, make_certificate, serve

if TYPE_CHECKING:
    from pathlib import Path

    from aos.package import Package

AMD64 = Platform("linux", "amd64")
LAYER = gzip.compress(b"\0" * 10240, mtime=0)


@dataclass
class Here:
    """One side: a content store, a client, and how long it would have slept."""

    root: Path
    environ: dict[str, str] = field(default_factory=dict)
    slept: list[float] = field(default_factory=list)
    reported: list[str] = field(default_factory=list)

    @property
    def content(self) -> ContentStore:
        return ContentStore(self.root)

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def _client(self, **options: Any) -> DistributionClient:
        environ = {"HOME": str(self.root), "XDG_RUNTIME_DIR": str(self.root)} | self.environ
        report = lambda descriptor, how: self.reported.append(how)  # noqa: E731
        return DistributionClient(self.content, environ, report=report, sleep=self._sleep, **options)

    def pull(self, reference: str, **options: Any) -> Package:
        async def run() -> Package:
            async with self._client(**options) as client:
                with self.content.leases.hold("test") as lease:
                    return await client.pull(parse_reference(reference), lease, platform=AMD64)

        return asyncio.run(run())

    def push(self, reference: str, package: Package, **options: Any) -> str:
        async def run() -> str:
            async with self._client(**options) as client:
                return await client.push(parse_reference(reference), package)

        return asyncio.run(run())

    def log_in(self, host: str, user: str, password: str) -> None:
        auth = base64.b64encode(f"{user}:{password}".encode()).decode()
        file = self.root / "containers/auth.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"auths": {host: {"auth": auth}}}))


@pytest.fixture
def here(tmp_path: Path) -> Here:
    return Here(tmp_path / "here")


@pytest.fixture
def there(stub_registry: StubRegistry) -> StubRegistry:
    """A stub that holds one image, `team/agent:1`."""
    put_image(stub_registry, "1", [LAYER])
    return stub_registry


def put_image(
    stub: StubRegistry,
    tag: str,
    layers: list[bytes],
    *,
    media: str = "application/vnd.oci.image",
    **config: Any,
) -> str:
    docker = "docker" in media
    configured: dict[str, Any] = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [digest_of(gzip.decompress(layer)) for layer in layers]},
        **config,
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json"
        if docker
        else f"{media}.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json"
            if docker
            else f"{media}.config.v1+json",
            **stub.add_blob(json.dumps(configured).encode()),
        },
        "layers": [
            {
                "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip"
                if docker
                else f"{media}.layer.v1.tar+gzip",
                **stub.add_blob(layer),
            }
            for layer in layers
        ],
    }
    return put_manifest(stub, tag, manifest)


def put_manifest(stub: StubRegistry, tag: str, manifest: object) -> str:
    data = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    digest = digest_of(data)
    stub.manifests[tag] = stub.manifests[digest] = data
    return digest


def reference(stub: StubRegistry, tag: str = "1") -> str:
    return f"{stub.host}/team/agent:{tag}"


def refused(kind: type[AosError], code: str, here: Here, what: str, **options: Any) -> AosError:
    with pytest.raises(kind) as caught:
        here.pull(what, **options)
    assert caught.value.code == code, caught.value.message
    assert not list(here.content.blobs.list()) or code not in ("digest-mismatch",)
    return caught.value


def test_a_pull_brings_everything(here: Here, there: StubRegistry) -> None:
    package = here.pull(reference(there))
    assert package.manifest_digest == digest_of(there.manifests["1"])
    assert {blob.digest for blob in here.content.blobs.list()} == {*there.blobs, package.manifest_digest}
    assert package.definition is None
    assert sorted(here.reported) == ["pulled", "pulled"]


def test_a_second_pull_fetches_no_blob(here: Here, there: StubRegistry) -> None:
    here.pull(reference(there))
    there.requests.clear()
    here.pull(reference(there))
    assert not [request for request in there.requests if "/blobs/" in request]


def test_a_pull_by_digest(here: Here, there: StubRegistry) -> None:
    digest = digest_of(there.manifests["1"])
    assert here.pull(f"{there.host}/team/agent@{digest}").manifest_digest == digest


def test_a_manifest_that_is_not_what_was_asked_for(here: Here, there: StubRegistry) -> None:
    digest = digest_of(there.manifests["1"])
    there.manifests[digest] = there.manifests["1"] + b" "
    refused(DataLoss, "digest-mismatch", here, f"{there.host}/team/agent@{digest}")


def test_a_header_that_belies_the_manifest(here: Here, there: StubRegistry) -> None:
    there.fault(
        lambda asked: asked.answer(200, there.manifests["1"], Docker_Content_Digest="sha256:" + "0" * 64),
        path="manifests",
    )
    refused(DataLoss, "digest-mismatch", here, reference(there))


def test_dockers_media_types_are_read(here: Here, there: StubRegistry) -> None:
    put_image(there, "docker", [LAYER], media="application/vnd.docker")
    package = here.pull(reference(there, "docker"))
    assert [layer.media_type for layer in package.layers] == ["application/vnd.oci.image.layer.v1.tar+gzip"]


def test_an_index_gives_this_platforms_image(here: Here, there: StubRegistry) -> None:
    one = put_image(there, "amd", [LAYER])
    other = put_image(there, "arm", [LAYER], architecture="arm64")
    manifests = [
        {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest,
            "size": len(there.manifests[digest]),
            "platform": {"os": "linux", "architecture": architecture},
        }
        for digest, architecture in ((other, "arm64"), (one, "amd64"))
    ]
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": manifests,
    }
    put_manifest(there, "multi", index)
    assert here.pull(reference(there, "multi")).manifest_digest == one
    index["manifests"] = manifests[:1]
    put_manifest(there, "foreign", index)
    error = refused(NotFound, "platform-not-found", here, reference(there, "foreign"))
    assert "linux/arm64" in (error.hint or "")


@pytest.mark.parametrize(
    ("manifest", "code"),
    [
        (b"not json", "not-an-image"),
        (b"[]", "not-an-image"),
        (b'{"schemaVersion": 1, "fsLayers": []}', "not-an-image"),
        (b'{"schemaVersion": 2, "mediaType": "application/x", "config": {}, "layers": []}', "not-an-image"),
        (b'{"manifests": [], "layers": []}', "document-ambiguous"),
        (
            {
                "schemaVersion": 2,
                "config": {
                    "mediaType": "application/vnd.oci.empty.v1+json",
                    "digest": digest_of(b"{}"),
                    "size": 2,
                },
                "layers": [],
            },
            "not-an-image",
        ),
    ],
)
def test_what_is_no_image_is_refused(here: Here, there: StubRegistry, manifest: object, code: str) -> None:
    put_manifest(there, "odd", manifest)
    with pytest.raises((InvalidArgument, DataLoss)) as caught:
        here.pull(reference(there, "odd"))
    assert caught.value.code == code
    assert not list(here.content.blobs.list())


def test_a_huge_manifest_is_not_read(here: Here, there: StubRegistry) -> None:
    put_manifest(there, "huge", b" " * (5 << 20))
    refused(Unavailable, "registry-answer-too-large", here, reference(there, "huge"))


def test_a_huge_config_is_not_fetched(here: Here, there: StubRegistry) -> None:
    manifest = json.loads(there.manifests["1"])
    manifest["config"]["size"] = 5 << 20
    put_manifest(there, "huge", manifest)
    refused(InvalidArgument, "document-too-large", here, reference(there, "huge"))


def test_a_layer_without_a_diff_id(here: Here, there: StubRegistry) -> None:
    put_image(there, "odd", [LAYER], rootfs={"type": "layers", "diff_ids": []})
    refused(InvalidArgument, "package-invalid", here, reference(there, "odd"))


def test_a_layer_that_cannot_be_unpacked(here: Here, there: StubRegistry) -> None:
    manifest = json.loads(there.manifests["1"])
    manifest["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.v1.squashfs"
    put_manifest(there, "odd", manifest)
    refused(InvalidArgument, "layer-unsupported", here, reference(there, "odd"))


def layer_path() -> str:
    return f"blobs/{digest_of(LAYER)}"


def test_a_blob_with_other_bytes(here: Here, there: StubRegistry) -> None:
    there.blobs[digest_of(LAYER)] = LAYER[:-1] + b"x"
    with pytest.raises(DataLoss) as caught:
        here.pull(reference(there))
    assert caught.value.code == "digest-mismatch"
    assert not here.content.blobs.exists(digest_of(LAYER))


def test_a_blob_that_is_longer(here: Here, there: StubRegistry) -> None:
    there.blobs[digest_of(LAYER)] = LAYER + b"more"
    refused(DataLoss, "blob-too-long", here, reference(there))


def test_a_blob_that_is_shorter(here: Here, there: StubRegistry) -> None:
    there.fault(lambda asked: asked.answer(200, LAYER[:9]), path=layer_path(), times=1)
    there.fault(
        lambda asked: asked.answer(206, b"", Content_Range=f"bytes 9-{len(LAYER) - 1}/{len(LAYER)}"),
        path=layer_path(),
        times=10,
    )
    refused(DataLoss, "blob-truncated", here, reference(there))
    assert here.slept


def test_a_broken_download_goes_on_where_it_stopped(here: Here, there: StubRegistry) -> None:
    there.fault(lambda asked: asked.answer(200, LAYER[:9], length=len(LAYER)), path=layer_path())
    assert here.pull(reference(there)).layers[0].size == len(LAYER)
    assert there.ranges == ["bytes=9-"]


def test_a_registry_that_ignores_ranges(here: Here, there: StubRegistry) -> None:
    there.fault(lambda asked: asked.answer(200, LAYER[:9], length=len(LAYER)), path=layer_path())
    there.fault(lambda asked: asked.answer(200, LAYER), path=layer_path())
    here.pull(reference(there))
    assert here.content.blobs.read(digest_of(LAYER)) == LAYER


def test_a_registry_that_answers_another_range(here: Here, there: StubRegistry) -> None:
    there.fault(lambda asked: asked.answer(200, LAYER[:9], length=len(LAYER)), path=layer_path())
    there.fault(lambda asked: asked.answer(206, LAYER[5:], Content_Range="bytes 5-9/10"), path=layer_path())
    refused(Unavailable, "registry-unavailable", here, reference(there))


def test_connections_that_keep_breaking_are_given_up(here: Here, there: StubRegistry) -> None:
    there.fault(lambda asked: asked.answer(200, b"", length=len(LAYER)), path=layer_path(), times=100)
    refused(Unavailable, "registry-unavailable", here, reference(there))
    assert here.slept == [0.25, 0.5, 1.0]


def test_a_registry_that_recovers_is_asked_again(here: Here, there: StubRegistry) -> None:
    there.fault(lambda asked: asked.answer(503), path="manifests", times=2)
    there.fault(lambda asked: asked.answer(429, Retry_After="7"), path="blobs", times=1)
    here.pull(reference(there))
    assert here.slept == [0.25, 0.5, 7.0]


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (500, Unavailable, "registry-unavailable"),
        (429, ResourceExhausted, "registry-rate-limited"),
        (403, PermissionDenied, "registry-denied"),
        (404, NotFound, "package-not-found"),
        (418, FailedPrecondition, "registry-refused"),
    ],
)
def test_refusals_have_their_kind(
    here: Here, there: StubRegistry, status: int, kind: type[AosError], code: str
) -> None:
    body = b'{"errors":[{"code":"X","message":"said\\u001b[31m so"}]}'
    there.fault(lambda asked: asked.answer(status, body), path="manifests", times=10)
    error = refused(kind, code, here, reference(there))
    assert "said [31m so" in error.message


def test_an_error_page_that_never_ends_is_cut(here: Here, there: StubRegistry) -> None:
    there.fault(lambda asked: asked.answer(404, b"x" * (1 << 20)), path="manifests")
    refused(NotFound, "package-not-found", here, reference(there))


def test_an_unknown_tag(here: Here, there: StubRegistry) -> None:
    assert "MANIFEST_UNKNOWN" in refused(NotFound, "package-not-found", here, reference(there, "no")).message


def test_nobody_listens(here: Here) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    refused(Unavailable, "registry-unavailable", here, f"127.0.0.1:{port}/a:1")


def test_a_reference_without_a_registry(here: Here) -> None:
    assert "registry" in (refused(InvalidArgument, "registry-missing", here, "agent:1").hint or "")


@pytest.mark.parametrize(
    ("what", "options", "base", "repository"),
    [
        ("docker.io/debian:12", {}, "https://registry-1.docker.io/", "library/debian"),
        ("docker.io/team/agent:1", {}, "https://registry-1.docker.io/", "team/agent"),
        ("registry.example/team/agent:1", {}, "https://registry.example/", "team/agent"),
        ("registry.example:5000/agent:1", {"plain_http": True}, "http://registry.example:5000/", "agent"),
    ],
)
def test_where_a_reference_leads(
    here: Here, what: str, options: dict[str, Any], base: str, repository: str
) -> None:
    async def run() -> str:
        async with here._client(**options) as client:
            session = await client._session(parse_reference(what), "pull", "pull")
            return str(session.repository_url)

    assert asyncio.run(run()) == f"{base}v2/{repository}/"


def test_a_digest_of_another_algorithm_is_not_ours_to_check(here: Here, there: StubRegistry) -> None:
    data = there.manifests["1"]
    there.fault(lambda asked: asked.answer(200, data, Docker_Content_Digest="sha512:abc"), path="manifests")
    assert here.pull(reference(there)).manifest_digest == digest_of(data)


def test_plain_http_beyond_loopback_needs_the_flag(here: Here, there: StubRegistry) -> None:
    there.fault(
        lambda asked: asked.answer(307, Location="http://registry.invalid/blob"), path="blobs", times=9
    )
    error = refused(FailedPrecondition, "registry-not-encrypted", here, reference(there))
    assert "--plain-http" in (error.hint or "")


def test_a_remote_registry_leads_to_no_service_of_this_host(here: Here) -> None:
    async def run() -> None:
        async with here._client() as client:
            session = await client._session(parse_reference("registry.example/a:1"), "pull", "pull")
            session._must_be_safe(httpx.URL("https://storage.example/blob"))
            with pytest.raises(FailedPrecondition):
                session._must_be_safe(httpx.URL("http://localhost:8080/admin"))

    asyncio.run(run())


# Authorization


def test_basic(here: Here, there: StubRegistry) -> None:
    expected = "Basic " + base64.b64encode(b"ann:secret").decode()

    def guard(asked: Asked) -> bool:
        if asked.path == "/v2/" or asked.headers.get("Authorization") == expected:
            return False
        asked.answer(401, WWW_Authenticate='Basic realm="here"')
        return True

    there.faults.append(guard)
    here.log_in(there.host, "ann", "secret")
    here.pull(reference(there))
    assert there.authorizations.count("") <= 3
    here.log_in(there.host, "ann", "wrong")
    error = refused(Unauthenticated, "registry-unauthenticated", here, reference(there))
    assert f"podman login {there.host}" in (error.hint or "")


def test_basic_without_a_login(here: Here, there: StubRegistry) -> None:
    there.fault(lambda asked: asked.answer(401, WWW_Authenticate='Basic realm="here"'), path="team", times=9)
    assert (
        "a login is needed"
        in refused(Unauthenticated, "registry-unauthenticated", here, reference(there)).message
    )


def test_an_unknown_scheme(here: Here, there: StubRegistry) -> None:
    there.fault(lambda asked: asked.answer(401, WWW_Authenticate="Negotiate"), path="team", times=9)
    refused(Unauthenticated, "registry-unauthenticated", here, reference(there))


class TokenServer:
    """Issues `token-<n>`; only the newest is good."""

    def __init__(self) -> None:
        self.count = 0
        self.asked: list[Asked] = []
        self.body: bytes | None = None
        self.status = 200

    def handle(self, asked: Asked) -> None:
        self.asked.append(asked)
        self.count += 1
        asked.answer(self.status, self.body or json.dumps({"token": f"token-{self.count}"}).encode())

    def guard(self, realm: str) -> Any:
        def guard(asked: Asked) -> bool:
            if asked.path == "/v2/" or asked.headers.get("Authorization") == f"Bearer token-{self.count}":
                return False
            challenge = (
                f'Bearer realm="http://{realm}/token",service="stub",scope="repository:team/agent:pull"'
            )
            asked.answer(401, WWW_Authenticate=challenge)
            return True

        return guard


def test_bearer_with_a_password(here: Here, there: StubRegistry) -> None:
    tokens = TokenServer()
    with serve(tokens.handle) as realm:
        there.faults.append(tokens.guard(realm))
        here.log_in(there.host, "ann", "secret")
        package = here.pull(reference(there))
        assert tokens.count == 1
        assert tokens.asked[0].headers["Authorization"] == "Basic " + base64.b64encode(b"ann:secret").decode()
        assert tokens.asked[0].query == {"service": "stub", "scope": "repository:team/agent:pull"}
        here.push(reference(there, "2"), package)
        assert "repository:team/agent:pull,push" in tokens.asked[1].query["scope"]
    assert there.manifests["2"] == there.manifests["1"]


def test_bearer_for_anybody_and_a_token_that_expires(here: Here, there: StubRegistry) -> None:
    tokens = TokenServer()
    with serve(tokens.handle) as realm:
        there.faults.append(tokens.guard(realm))

        def expire(asked: Asked) -> None:
            tokens.count += 1
            asked.answer(401, WWW_Authenticate=f'Bearer realm="http://{realm}/token"')

        there.faults.insert(0, lambda asked: False)
        there.fault(expire, path="blobs")
        there.faults.insert(0, there.faults.pop())
        here.pull(reference(there))
        assert "Authorization" not in tokens.asked[0].headers
        assert len(tokens.asked) == 2


def test_bearer_with_an_identity_token(here: Here, there: StubRegistry) -> None:
    tokens = TokenServer()
    with serve(tokens.handle) as realm:
        there.faults.append(tokens.guard(realm))
        file = here.root / "containers/auth.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"auths": {there.host: {"identitytoken": "long-lived"}}}))
        here.pull(reference(there))
        assert tokens.asked[0].method == "POST"
        assert b"refresh_token=long-lived" in tokens.asked[0].body
        assert b"grant_type=refresh_token" in tokens.asked[0].body


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_token_server_that_refuses(here: Here, there: StubRegistry, status: int) -> None:
    tokens = TokenServer()
    tokens.status = status
    with serve(tokens.handle) as realm:
        there.faults.append(tokens.guard(realm))
        refused(Unauthenticated, "registry-unauthenticated", here, reference(there))


@pytest.mark.parametrize("body", [b"x", b"[]", b"{}", b'{"token": 7}', b'{"token": "a\\r\\nb"}'])
def test_a_token_server_without_a_token(here: Here, there: StubRegistry, body: bytes) -> None:
    tokens = TokenServer()
    tokens.body = body
    with serve(tokens.handle) as realm:
        there.faults.append(tokens.guard(realm))
        refused(Unavailable, "registry-unavailable", here, reference(there))


@pytest.mark.parametrize("realm", ["http://tokens.invalid/token", "http://[", "file:///etc/passwd"])
def test_credentials_go_to_no_unsafe_token_server(here: Here, there: StubRegistry, realm: str) -> None:
    there.fault(
        lambda asked: asked.answer(401, WWW_Authenticate=f'Bearer realm="{realm}"'), path="team", times=9
    )
    here.log_in(there.host, "ann", "secret")
    with pytest.raises((FailedPrecondition, Unauthenticated)):
        here.pull(reference(there))


def test_a_redirect_to_another_host_carries_no_authorization(here: Here, there: StubRegistry) -> None:
    storage: list[str] = []

    def store(asked: Asked) -> None:
        storage.append(asked.headers.get("Authorization", ""))
        asked.answer(200, there.blobs[asked.path.removeprefix("/")])

    with serve(store) as elsewhere:

        def guard(asked: Asked) -> bool:
            if asked.path == "/v2/":
                return False
            if not asked.headers.get("Authorization"):
                asked.answer(401, WWW_Authenticate='Basic realm="x"')
                return True
            if "/blobs/" in asked.path:
                asked.answer(307, Location=f"http://{elsewhere}/{asked.path.rpartition('/')[2]}")
                return True
            return False

        there.faults.append(guard)
        here.log_in(there.host, "ann", "secret")
        here.pull(reference(there))
    assert storage == ["", ""]


def test_a_challenge_of_another_host_gets_no_credentials(here: Here, there: StubRegistry) -> None:
    with serve(lambda asked: asked.answer(401, WWW_Authenticate='Basic realm="phishing"')) as elsewhere:
        there.fault(lambda asked: asked.answer(307, Location=f"http://{elsewhere}/x"), path="blobs", times=9)
        here.log_in(there.host, "ann", "secret")
        here.log_in(elsewhere, "ann", "secret")
        refused(Unauthenticated, "registry-unauthenticated", here, reference(there))


def test_redirects_in_circles(here: Here, there: StubRegistry) -> None:
    there.fault(lambda asked: asked.answer(302, Location=asked.path), path="manifests", times=100)
    refused(Unavailable, "registry-unavailable", here, reference(there))


# Push


@pytest.fixture
def package(here: Here, there: StubRegistry) -> Package:
    return here.pull(reference(there))


@pytest.fixture
def empty() -> Any:
    stub = StubRegistry()
    with serve(stub.handle) as host:
        stub.host = host
        yield stub


def test_a_push_sends_blobs_first_and_the_manifest_last(
    here: Here, package: Package, empty: StubRegistry
) -> None:
    here.push(reference(empty), package)
    assert empty.requests[-1] == "PUT /v2/team/agent/manifests/1"
    assert digest_of(empty.manifests["1"]) == package.manifest_digest
    assert empty.blobs[digest_of(LAYER)] == LAYER
    empty.requests.clear()
    here.push(reference(empty, "2"), package)
    assert not [request for request in empty.requests if request.startswith("POST")]


def test_a_push_by_digest(here: Here, package: Package, empty: StubRegistry) -> None:
    here.push(f"{empty.host}/a@{package.manifest_digest}", package)
    assert set(empty.manifests) == {package.manifest_digest}


def test_an_upload_that_breaks_is_begun_again(here: Here, package: Package, empty: StubRegistry) -> None:
    empty.fault(lambda asked: asked.answer(502), method="PUT", path="uploads", times=2)
    here.push(reference(empty), package)
    assert empty.blobs[digest_of(LAYER)] == LAYER


def test_an_upload_that_keeps_breaking(here: Here, package: Package, empty: StubRegistry) -> None:
    empty.fault(lambda asked: asked.answer(502), method="PUT", path="uploads", times=100)
    with pytest.raises(Unavailable):
        here.push(reference(empty), package)
    assert not empty.manifests


def test_a_body_that_is_too_large_goes_in_chunks(
    here: Here, package: Package, empty: StubRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "_CHUNK", 16)
    empty.fault(lambda asked: asked.answer(413), method="PUT", path="uploads/upload", times=1)

    def broken(asked: Asked) -> None:
        empty.uploads[asked.path.rpartition("/")[2]] += asked.body[:5]
        asked.answer(500)

    empty.fault(broken, method="PATCH", times=2)
    here.push(reference(empty), package)
    assert empty.blobs[digest_of(LAYER)] == LAYER
    assert [request for request in empty.requests if request.startswith("PATCH")]


def test_a_body_that_is_too_large_even_in_chunks(here: Here, package: Package, empty: StubRegistry) -> None:
    empty.fault(lambda asked: asked.answer(413), method="PUT", path="uploads", times=100)
    with pytest.raises(FailedPrecondition):
        here.push(reference(empty), package)


def test_an_upload_without_a_location(here: Here, package: Package, empty: StubRegistry) -> None:
    empty.fault(lambda asked: asked.answer(202), method="POST", times=100)
    with pytest.raises(Unavailable):
        here.push(reference(empty), package)


def test_a_registry_that_stores_something_else(here: Here, package: Package, empty: StubRegistry) -> None:
    empty.fault(
        lambda asked: asked.answer(201, Docker_Content_Digest="sha256:" + "0" * 64),
        method="PUT",
        path="manifests",
    )
    with pytest.raises(DataLoss):
        here.push(reference(empty), package)


def test_a_damaged_blob_is_not_pushed(here: Here, package: Package, empty: StubRegistry) -> None:
    stored = next(path for path in here.root.rglob("*") if path.name == digest_of(LAYER).partition(":")[2])
    stored.chmod(0o644)
    stored.write_bytes(LAYER[:-1] + b"x")
    with pytest.raises(AosError):
        here.push(reference(empty), package)
    assert not empty.manifests


# TLS


def test_tls_with_a_ca_of_ones_own(here: Here, there: StubRegistry, tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "localhost", "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with serve(there.handle, context) as host:
        error = refused(FailedPrecondition, "registry-tls", here, f"{host}/team/agent:1")
        assert "SSL_CERT_FILE" in (error.hint or "")
        here.environ["SSL_CERT_FILE"] = str(certificate)
        here.pull(f"{host}/team/agent:1")
        with pytest.raises(AosError):
            here.pull(f"{host}/team/agent:1", plain_http=True)


def test_a_ca_file_that_cannot_be_read(here: Here, there: StubRegistry, tmp_path: Path) -> None:
    here.environ["SSL_CERT_FILE"] = str(tmp_path / "none.pem")
    refused(FailedPrecondition, "registry-tls", here, reference(there))
