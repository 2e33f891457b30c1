"""The configuration of an OCI runtime: what confines is in it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from aos.content.protocol import IdMap
from aos.runtime.bundle import exec_config, runtime_config
from aos.runtime.capabilities import CAPABILITIES
from aos.runtime.spec import AgentSpec, Confinement, Mount, ProcessSpec, Rootfs, Ulimit
from aos.runtime.users import User

SPEC = AgentSpec(ProcessSpec(("true",)), Rootfs(()), mounts=(Mount("tmpfs", "/tmp", size=5),))


def _config(spec: AgentSpec = SPEC, *, user: User | None = None, **more: Any) -> dict[str, Any]:
    given = {"files": (), "sources": {}, "seccomp": {"x": 1}, "open_files": 100, **more}
    return runtime_config(spec, user=user or User(), rootfs="/r", cgroup="/c", **given)


def _confined(**what: Any) -> AgentSpec:
    return replace(SPEC, confinement=Confinement(**what))


def test_defaults() -> None:
    config = _config()
    process = config["process"]
    assert process["noNewPrivileges"] is True
    assert process["capabilities"]["bounding"] == sorted(CAPABILITIES)
    assert {limit["type"]: limit["hard"] for limit in process["rlimits"]} == {
        "RLIMIT_NOFILE": 100,
        "RLIMIT_CORE": 0,
    }
    assert "apparmorProfile" not in process and "selinuxLabel" not in process
    assert {"allow": False, "access": "rwm"} in config["linux"]["resources"]["devices"]
    assert {one["type"] for one in config["linux"]["namespaces"]} >= {"pid", "ipc", "uts", "mount", "cgroup"}
    assert "/proc/kcore" in config["linux"]["maskedPaths"]
    assert "/proc/sys" in config["linux"]["readonlyPaths"]
    for mount in config["mounts"]:
        assert "nosuid" in mount["options"]


def test_labels() -> None:
    assert _config(_confined(label="aos-agent"))["process"]["apparmorProfile"] == "aos-agent"
    label = "system_u:system_r:container_t:s0:c1,c2"
    config = _config(_confined(label=label))
    assert config["process"]["selinuxLabel"] == config["linux"]["mountLabel"] == label


def test_no_filter_is_no_filter() -> None:
    assert "seccomp" not in _config(seccomp=None)["linux"]


def test_a_user_other_than_root_holds_nothing() -> None:
    held = _config(_confined(add_capabilities=("CAP_NET_RAW",)), user=User(1000, 1000))["process"][
        "capabilities"
    ]
    assert held["effective"] == held["permitted"] == [] and "CAP_NET_RAW" in held["bounding"]


def test_an_exec_is_as_confined_as_the_entrypoint() -> None:
    spec = _confined(drop_capabilities=("ALL",), label="aos-agent", ulimits=(Ulimit("nofile", 5, 6),))
    process = exec_config(ProcessSpec(("sh",), cwd="/x"), User(), _config(spec)["process"])
    assert process["args"] == ["sh"] and process["cwd"] == "/x"
    assert process["capabilities"]["bounding"] == process["capabilities"]["effective"] == []
    assert process["apparmorProfile"] == "aos-agent" and process["noNewPrivileges"] is True
    assert {"type": "RLIMIT_NOFILE", "soft": 5, "hard": 6} in process["rlimits"]


def test_ids_of_its_own() -> None:
    ids = IdMap(((0, 5_000_000, 65_536),), ((0, 5_000_000, 65_536),))
    linux = _config(ids=ids)["linux"]
    assert {"type": "user"} in linux["namespaces"]
    assert (
        linux["uidMappings"]
        == linux["gidMappings"]
        == [{"containerID": 0, "hostID": 5_000_000, "size": 65_536}]
    )
