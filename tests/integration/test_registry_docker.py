"""The distribution client and the verbs against docker-registry, with skopeo on the other side."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import subprocess
import time
from typing import TYPE_CHECKING, Any

from aos.compose.packages import content_store, local_registry
from aos.content.store import ContentStore
from aos.oci.descriptor import Descriptor
from aos.oci.reference import parse_reference
from aos.package import Package, load_package
from aos.registry import transfer
from aos.registry.client import DistributionClient
from fix_installation import Installation, requires
from fix_registry import HTPASSWD, PASSWORD, USER, Asked, make_certificate, run_docker_registry, serve
from package_making import make_package

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def skopeo(*words: str | Path, check: bool = True) -> str:
    requires("skopeo")
    done = subprocess.run(["skopeo", *map(str, words)], capture_output=True, text=True, timeout=120)
    assert not check or done.returncode == 0, done.stderr
    return done.stdout


def made(installation: Installation, reference: str = "hello:1.2.0") -> Package:
    """A package in the installation's store, under a name."""
    content = content_store(installation.config)
    package = make_package(content.blobs)
    local_registry(installation.config, content).tag(
        reference, package.manifest_digest, name=package.name, version=package.version, size=package.size
    )
    return package


def another(installation: Installation, **environ: str) -> Installation:
    """The same host with an empty store."""
    from dataclasses import replace

    config = replace(installation.config, root=installation.root.with_name("other-root"))
    return Installation(config, {**installation.environ, **environ})


def test_round_trip(installation: Installation, docker_registry: str, tmp_path: Path) -> None:
    package = made(installation)
    there = f"{docker_registry}/team/round-trip:1"
    pushed = installation("push", "hello:1.2.0", there)
    assert package.manifest_digest in pushed.out
    assert pushed.err.count("pushed") == 3

    shown = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{there}"))
    assert shown["Digest"] == package.manifest_digest
    skopeo("copy", "--src-tls-verify=false", f"docker://{there}", f"oci:{tmp_path / 'copy'}:x")

    again = installation("push", "hello:1.2.0", there)
    assert again.err.count("exists") == 3

    other = another(installation)
    assert other("pull", "-q", there).out.strip() == package.manifest_digest
    assert other("packages", "ls", "-q").out.strip() == package.manifest_digest
    assert "unsigned" in other("verify", there).out
    assert load_package(content_store(other.config).blobs, package.manifest_digest) == package
    assert other("packages", "inspect", there, "-o", "json").json["definition"] == package.definition
    assert other(
        "pull", f"{docker_registry}/team/round-trip@{package.manifest_digest}", "-o", "json"
    ).json == [
        {
            "reference": f"{docker_registry}/team/round-trip@{package.manifest_digest}",
            "digest": package.manifest_digest,
        }
    ]


def test_a_push_to_where_the_name_says(installation: Installation, docker_registry: str) -> None:
    package = made(installation, f"{docker_registry}/named:2")
    installation("push", f"{docker_registry}/named:2")
    shown = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{docker_registry}/named:2"))
    assert shown["Digest"] == package.manifest_digest
    assert installation("push", "named-not", check=3).err.startswith("aos push:")


def test_dockers_format_and_an_index(
    installation: Installation, docker_registry: str, tmp_path: Path
) -> None:
    package = made(installation)
    installation("push", "hello:1.2.0", f"oci:{tmp_path / 'layout'}")
    there = f"{docker_registry}/docker-format:1"
    skopeo(
        "copy",
        "--dest-tls-verify=false",
        "--format=v2s2",
        f"oci:{tmp_path / 'layout'}:1.2.0",
        f"docker://{there}",
    )
    installation("pull", there)
    facts = installation("packages", "inspect", there, "-o", "json").json
    assert facts["digest"] != package.manifest_digest
    assert (facts["name"], facts["definition"]) == ("hello", package.definition)
    installation("verify", there)
    installation("push", there, f"{docker_registry}/docker-format:2")


def test_what_is_not_there(installation: Installation, docker_registry: str) -> None:
    result = installation("pull", f"{docker_registry}/team/nothing:1", check=3)
    assert "no such repository" in result.err
    assert "Traceback" not in result.err
    assert installation("packages", "ls", "-q").out == ""


def test_no_registry_listens(installation: Installation) -> None:
    made(installation)
    assert "registry" in installation("push", "hello:1.2.0", check=2).err
    installation("push", "hello:1.2.0", "localhost:1/x:1", check=11)


def client_run(
    content: ContentStore, host: str, work: Callable[[DistributionClient, Any], Any], **environ: str
) -> Any:
    async def run() -> Any:
        async with DistributionClient(content, environ) as client:
            session = await client._session(parse_reference(f"{host}/large:1"), "pull,push", "test")
            return await work(client, session)

    return asyncio.run(run())


def large_blob(content: ContentStore, size: int) -> Descriptor:
    digest = hashlib.sha256()
    with content.blobs.writer() as writer:
        for number in range(size >> 20):
            piece = hashlib.sha256(b"%d" % number).digest() * (1 << 15)
            digest.update(piece)
            writer.write(piece)
        stored = writer.commit()
    return Descriptor("application/octet-stream", stored.digest, stored.size)


def test_a_large_blob_in_one_request_and_in_chunks(tmp_path: Path, docker_registry: str) -> None:
    here, there = ContentStore(tmp_path / "here"), ContentStore(tmp_path / "there")
    blob = large_blob(here, 48 << 20)

    async def chunks(client: DistributionClient, session: Any) -> None:
        await transfer._send_chunks(session, blob, here.blobs)
        assert not await transfer.upload(session, blob, here.blobs)
        await transfer.download(session, blob, there.blobs)

    client_run(here, docker_registry, chunks)
    assert there.blobs.stat(blob.digest).size == blob.size

    second = large_blob(here, 40 << 20)

    async def whole(client: DistributionClient, session: Any) -> None:
        assert await transfer.upload(session, second, here.blobs)
        await transfer.download(session, second, there.blobs)

    client_run(here, docker_registry, whole)
    assert there.blobs.stat(second.digest).size == second.size


def test_basic_with_the_login_of_skopeo(installation: Installation, tmp_path: Path) -> None:
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    package = made(installation)
    htpasswd = {"realm": "here", "path": str(tmp_path / "htpasswd")}
    with run_docker_registry(auth={"htpasswd": htpasswd}) as host:
        refused = installation("push", "hello:1.2.0", f"{host}/a:1", check=7)
        assert f"podman login {host}" in refused.err
        auth = tmp_path / "auth.json"
        skopeo("login", "--tls-verify=false", f"--authfile={auth}", "-u", USER, "-p", PASSWORD, host)
        trusted = Installation(installation.config, {"REGISTRY_AUTH_FILE": str(auth)})
        trusted("push", "hello:1.2.0", f"{host}/a:1")
        assert package.manifest_digest in trusted("pull", f"{host}/a:1").out
        auth.write_text(json.dumps({"auths": {host: {"auth": base64.b64encode(b"ali:wrong").decode()}}}))
        wrong = trusted("pull", f"{host}/a:1", check=7)
        assert "wrong" not in wrong.err


def test_bearer_from_a_token_server(installation: Installation, tmp_path: Path) -> None:
    """The registry checks the token's signature, so the whole flow of `token.md` is real."""
    certificate, key = make_certificate(tmp_path, "localhost")
    der = subprocess.run(
        ["openssl", "x509", "-in", str(certificate), "-outform", "DER"], check=True, capture_output=True
    ).stdout
    scopes: list[str] = []

    def encode(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    def issue(asked: Asked) -> None:
        if (
            asked.headers.get("Authorization")
            != "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        ):
            return asked.answer(401)
        scopes.append(asked.query["scope"])
        kind, name, actions = asked.query["scope"].split(":")
        header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        now = int(time.time())
        claims = {
            "iss": "tests",
            "sub": USER,
            "aud": asked.query["service"],
            "exp": now + 60,
            "nbf": now - 60,
        }
        claims |= {"iat": now, "access": [{"type": kind, "name": name, "actions": actions.split(",")}]}
        text = encode(json.dumps(header).encode()) + "." + encode(json.dumps(claims).encode())
        signature = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", str(key)],
            input=text.encode(),
            check=True,
            capture_output=True,
        ).stdout
        return asked.answer(200, json.dumps({"token": f"{text}.{encode(signature)}"}).encode())

    package = made(installation)
    with serve(issue) as realm:
        token = {
            "realm": f"http://{realm}/token",
            "service": "registry",
            "issuer": "tests",
            "rootcertbundle": str(certificate),
        }
        with run_docker_registry(auth={"token": token}) as host:
            auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            (tmp_path / "auth.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))
            trusted = Installation(installation.config, {"REGISTRY_AUTH_FILE": str(tmp_path / "auth.json")})
            trusted("push", "hello:1.2.0", f"{host}/team/a:1")
            assert scopes == ["repository:team/a:pull,push"]
            assert package.manifest_digest in trusted("pull", f"{host}/team/a:1").out
            assert scopes[1:] == ["repository:team/a:pull"]
            installation("pull", f"{host}/team/a:1", check=7)


def test_tls(installation: Installation, tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "localhost")
    package = made(installation)
    with run_docker_registry(http={"tls": {"certificate": str(certificate), "key": str(key)}}) as host:
        assert "SSL_CERT_FILE" in installation("push", "hello:1.2.0", f"{host}/a:1", check=5).err
        trusting = Installation(installation.config, {"SSL_CERT_FILE": str(certificate)})
        trusting("push", "hello:1.2.0", f"{host}/a:1")
        assert package.manifest_digest in trusting("pull", f"{host}/a:1").out


def test_a_damaged_registry_is_found_out(installation: Installation, tmp_path: Path) -> None:
    package = made(installation)
    with run_docker_registry(storage={"filesystem": {"rootdirectory": str(tmp_path / "data")}}) as host:
        installation("push", "hello:1.2.0", f"{host}/a:1")
        layer = package.layers[1].digest.partition(":")[2]
        file = tmp_path / "data/docker/registry/v2/blobs/sha256" / layer[:2] / layer / "data"
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
        other = another(installation)
        refused = other("pull", f"{host}/a:1", check=13)
        assert "digest" in refused.err or "announced" in refused.err
        assert other("packages", "ls", "-q").out == ""
        os.truncate(file, 20)
        other("pull", f"{host}/a:1", check=13)
