from __future__ import annotations

import base64
import json
import os
import stat
from datetime import timedelta
from pathlib import Path

import pytest

from aos.errors import FailedPrecondition, InvalidArgument, Unavailable
from aos.registry.credentials import Credentials, find_credentials


def auth(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "bin").mkdir()
    return {
        "HOME": str(tmp_path / "home"),
        "XDG_RUNTIME_DIR": str(tmp_path / "runtime"),
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
    }


def docker(environ: dict[str, str], config: object) -> Path:
    file = Path(environ["HOME"], ".docker/config.json")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(config if isinstance(config, str) else json.dumps(config))
    return file


def podman(environ: dict[str, str], config: object) -> None:
    file = Path(environ["XDG_RUNTIME_DIR"], "containers/auth.json")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(config))


def helper(environ: dict[str, str], name: str, script: str) -> None:
    file = Path(environ["PATH"].partition(":")[0], f"docker-credential-{name}")
    file.write_text("#!/bin/sh\n" + script)
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


def test_nobody_logged_in(environ: dict[str, str]) -> None:
    assert find_credentials(environ, "registry.example", "a/b") is None


def test_dockers_file(environ: dict[str, str]) -> None:
    docker(environ, {"auths": {"registry.example:5000": auth("ann", "s:cret")}})
    assert find_credentials(environ, "registry.example:5000", "a/b") == Credentials("ann", "s:cret")
    assert find_credentials(environ, "registry.example", "a/b") is None


def test_docker_config_names_another_directory(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"r.example": auth("ann", "x")}}))
    assert find_credentials(environ | {"DOCKER_CONFIG": str(tmp_path)}, "r.example", "a") == Credentials(
        "ann", "x"
    )


@pytest.mark.parametrize("key", ["https://r.example/v1/", "https://r.example", "r.example/v2/", "r.example/"])
def test_keys_that_are_addresses(environ: dict[str, str], key: str) -> None:
    docker(environ, {"auths": {key: auth("ann", "x")}})
    assert find_credentials(environ, "r.example", "a") == Credentials("ann", "x")


def test_the_key_of_dockers_own_registry(environ: dict[str, str]) -> None:
    docker(environ, {"auths": {"https://index.docker.io/v1/": auth("ann", "x")}})
    assert find_credentials(environ, "docker.io", "library/debian") == Credentials("ann", "x")


def test_podmans_file_comes_first_and_its_most_specific_key_wins(environ: dict[str, str]) -> None:
    docker(environ, {"auths": {"r.example": auth("docker", "x")}})
    podman(environ, {"auths": {"r.example": auth("all", "x"), "r.example/team": auth("team", "x")}})
    assert find_credentials(environ, "r.example", "team/agent") == Credentials("team", "x")
    assert find_credentials(environ, "r.example", "teamwork/agent") == Credentials("all", "x")


def test_a_named_file_is_the_only_one(environ: dict[str, str], tmp_path: Path) -> None:
    docker(environ, {"auths": {"r.example": auth("docker", "x")}})
    assert (
        find_credentials(environ | {"REGISTRY_AUTH_FILE": str(tmp_path / "none")}, "r.example", "a") is None
    )


def test_an_identity_token(environ: dict[str, str]) -> None:
    docker(environ, {"auths": {"r.example": {"identitytoken": "long", **auth("00000000", "")}}})
    found = find_credentials(environ, "r.example", "a")
    assert found is not None
    assert found.identity_token == "long"


def test_secrets_are_not_shown() -> None:
    shown = repr(Credentials("ann", "secret-one", "secret-two"))
    assert "ann" in shown
    assert "secret" not in shown


def test_basic_is_rfc_7617() -> None:
    assert Credentials("Aladdin", "open sesame").basic() == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="


def test_a_helper_is_asked(environ: dict[str, str]) -> None:
    helper(
        environ, "vault", 'read server; echo "{\\"Username\\": \\"ann\\", \\"Secret\\": \\"for $server\\"}"'
    )
    docker(environ, {"credHelpers": {"r.example": "vault"}})
    assert find_credentials(environ, "r.example", "a") == Credentials("ann", "for r.example")
    assert find_credentials(environ, "other.example", "a") is None


def test_a_store_for_all_registries_and_a_token_from_it(environ: dict[str, str]) -> None:
    helper(environ, "vault", 'echo \'{"Username": "<token>", "Secret": "abc"}\'')
    docker(environ, {"credsStore": "vault", "auths": {"r.example": {}}})
    assert find_credentials(environ, "r.example", "a") == Credentials(identity_token="abc")


def test_a_helper_that_knows_nothing(environ: dict[str, str]) -> None:
    helper(environ, "vault", "echo credentials not found in native keychain; exit 1")
    docker(environ, {"credsStore": "vault"})
    assert find_credentials(environ, "r.example", "a") is None


def test_a_helper_that_hangs_is_given_up(environ: dict[str, str]) -> None:
    helper(environ, "vault", "exec sleep 60")
    docker(environ, {"credsStore": "vault"})
    with pytest.raises(Unavailable) as caught:
        find_credentials(environ, "r.example", "a", helper_time=timedelta(milliseconds=200))
    assert caught.value.code == "credential-helper-timeout"


@pytest.mark.parametrize("script", ["echo broken >&2; exit 3", "echo nonsense", "echo '{\"Username\": 1}'"])
def test_a_helper_that_fails(environ: dict[str, str], script: str) -> None:
    helper(environ, "vault", script)
    file = docker(environ, {"credsStore": "vault"})
    with pytest.raises(FailedPrecondition) as caught:
        find_credentials(environ, "r.example", "a")
    assert caught.value.code == "credential-helper-failed"
    assert str(file) in (caught.value.hint or "")


def test_a_helper_that_is_not_installed(environ: dict[str, str]) -> None:
    docker(environ, {"credsStore": "absent"})
    with pytest.raises(FailedPrecondition) as caught:
        find_credentials(environ, "r.example", "a")
    assert "docker-credential-absent" in caught.value.message


@pytest.mark.parametrize(
    "config",
    [
        "{",
        "[]",
        '"text"',
        {"auths": ["r.example"]},
        {"auths": {"r.example": "text"}},
        {"auths": {"r.example": {"auth": "%%%"}}},
        {"auths": {"r.example": {"auth": base64.b64encode(b"no colon").decode()}}},
        {"auths": {"r.example": {"auth": base64.b64encode(b"\xff:x").decode()}}},
        {"auths": {"r.example": {"auth": 7}}},
        {"credHelpers": ["r.example"]},
        {"credsStore": "../../bin/sh"},
        {"credsStore": 7},
        "[" * 100_000,
    ],
)
def test_a_damaged_file_is_named(environ: dict[str, str], config: object) -> None:
    file = docker(environ, config)
    with pytest.raises(InvalidArgument) as caught:
        find_credentials(environ, "r.example", "a")
    assert caught.value.code == "credentials-invalid"
    assert str(file) in caught.value.message


def test_a_file_that_is_a_directory(environ: dict[str, str]) -> None:
    Path(environ["HOME"], ".docker/config.json").mkdir(parents=True)
    with pytest.raises(InvalidArgument) as caught:
        find_credentials(environ, "r.example", "a")
    assert caught.value.code == "credentials-invalid"
