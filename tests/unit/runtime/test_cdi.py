"""Devices as the host's CDI files describe them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from aos.errors import AosError
from aos.runtime.cdi import find_devices
from aos.runtime.spec import AgentSpec, ProcessSpec, Rootfs

if TYPE_CHECKING:
    from pathlib import Path

GPUS = """\
cdiVersion: 0.6.0
kind: aos.test/gpu
containerEdits:
  env: [DRIVER=1]
  mounts:
    - {hostPath: /usr/lib/driver.so, containerPath: /usr/lib/driver.so, options: [ro, nosuid]}
devices:
  - name: all
  - name: "0"
    containerEdits:
      env: [FIRST=1]
      deviceNodes: [{path: /dev/gpu0, hostPath: /dev/zero, permissions: rw}]
  - name: "1"
    containerEdits:
      deviceNodes: [{path: /dev/gpu1, type: c, major: 195, minor: 1, fileMode: 438}]
"""


@pytest.fixture
def cdi(tmp_path: Path) -> Path:
    (tmp_path / "gpus.yaml").write_text(GPUS)
    return tmp_path


def _code(names: tuple[str, ...], directory: Path, *, hooks: bool = False) -> str:
    with pytest.raises(AosError) as refused:
        find_devices(names, hooks=hooks, directories=[directory])
    assert refused.value.hint
    return refused.value.code


def test_a_device_is_its_nodes_mounts_and_variables(cdi: Path) -> None:
    edits = find_devices(("aos.test/gpu=0", "aos.test/gpu=1"), hooks=False, directories=[cdi])
    assert [node["path"] for node in edits.nodes] == ["/dev/gpu0", "/dev/gpu1"]
    assert edits.nodes[0] | {"uid": 0, "gid": 0} == {
        **{"path": "/dev/gpu0", "access": "rw", "type": "c", "major": 1, "minor": 5},
        **{"fileMode": 0o666, "uid": 0, "gid": 0},
    }
    assert edits.nodes[1] == {
        **{"path": "/dev/gpu1", "access": "rwm", "type": "c", "major": 195, "minor": 1},
        **{"fileMode": 438},
    }
    assert edits.env == (("DRIVER", "1"), ("FIRST", "1"))
    spec = edits.on(AgentSpec(ProcessSpec(("true",), env=(("FIRST", "mine"),)), Rootfs(())))
    assert [mount.target for mount in spec.mounts] == ["/usr/lib/driver.so"] and spec.mounts[0].read_only
    assert dict(spec.process.env)["FIRST"] == "mine"
    config: dict[str, Any] = {"linux": {"resources": {"devices": []}}, "process": {"user": {}}}
    edits.apply(config)
    assert [rule["access"] for rule in config["linux"]["resources"]["devices"]] == ["rw", "rwm"]
    assert all("access" not in device for device in config["linux"]["devices"])


def test_so_many_gpus(cdi: Path) -> None:
    assert len(find_devices(("1",), hooks=False, directories=[cdi]).nodes) == 1
    assert len(find_devices(("2",), hooks=False, directories=[cdi]).nodes) == 2
    assert _code(("3",), cdi) == "device-unknown"


def test_what_is_refused(cdi: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert _code(("1",), empty) == "devices-missing"
    assert _code(("aos.test/gpu=7",), cdi) == "device-unknown"
    hook = {"hookName": "createContainer", "path": "/usr/bin/true"}
    device = {"name": "hooked", "containerEdits": {"hooks": [hook]}}
    (cdi / "hooked.json").write_text(
        json.dumps({"cdiVersion": "1.0.0", "kind": "aos.test/x", "devices": [device]})
    )
    assert _code(("aos.test/x=hooked",), cdi) == "device-hook-refused"
    assert find_devices(("aos.test/x=hooked",), hooks=True, directories=[cdi]).hooks == (hook,)


@pytest.mark.parametrize("text", ["{}", "[]", "{", '{"cdiVersion": "9", "kind": "a/b", "devices": []}'])
def test_files_that_describe_nothing(cdi: Path, text: str) -> None:
    (cdi / "broken.json").write_text(text)
    assert _code(("aos.test/gpu=0",), cdi) == "cdi-invalid"


def test_later_directories_win(cdi: Path, tmp_path: Path) -> None:
    later = tmp_path / "later"
    later.mkdir()
    (later / "gpus.yaml").write_text(GPUS.replace("FIRST=1", "FIRST=2"))
    edits = find_devices(("aos.test/gpu=0",), hooks=False, directories=[cdi, later])
    assert ("FIRST", "2") in edits.env
