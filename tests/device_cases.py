"""Devices that the host describes (CDI): cases for every backend that gives them to its sandboxes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import pytest

from aos.errors import FailedPrecondition
from aos.runtime.spec import Confinement
from aos.testing.runtime import case
from supervised_cases import IsolatedCases, IsolatedKit

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["DeviceCases"]


class DeviceKit(IsolatedKit, Protocol):
    cdi: tuple[Path, ...]
    """Where the host describes its devices."""


class DeviceCases(IsolatedCases):
    @case
    async def test_a_device_that_the_host_describes(self, kit: DeviceKit, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("of the driver")
        edits = {
            "deviceNodes": [
                {"path": "/dev/of-the-test", "hostPath": "/dev/loop-control", "permissions": "r"}
            ],
            "mounts": [{"hostPath": f"{tmp_path}/file", "containerPath": "/driver"}],
            "env": ["DRIVER=there"],
        }
        device = {"name": "one", "containerEdits": edits}
        described = {"cdiVersion": "0.6.0", "kind": "aos.test/zero", "devices": [device]}
        (tmp_path / "cdi.json").write_text(json.dumps(described))
        kit.cdi = (tmp_path,)
        script = "(: < /dev/of-the-test); cat /driver; echo $DRIVER; echo x > /dev/of-the-test; true"
        spec = self.shell(kit, script)
        spec = replace(spec, confinement=Confinement(devices=("aos.test/zero=one",), users="auto"))
        run = await self.run(kit.make(), spec)
        assert run.out.decode().split() == ["of", "the", "driverthere"], run
        assert b"not permitted" in run.err  # it is for reading

    @case
    async def test_no_device_is_there_that_nobody_asked_for(self, kit: DeviceKit) -> None:
        spec = replace(self.shell(kit, "true"), confinement=Confinement(devices=("aos.test/zero=one",)))
        kit.cdi = (kit.config.root / "nothing",)
        with pytest.raises(FailedPrecondition) as refused:
            await kit.make().create(self.id(), spec)
        assert refused.value.code == "devices-missing"
        assert "nvidia-container-toolkit" in str(refused.value.hint)
