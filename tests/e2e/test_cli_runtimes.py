"""`aos runtimes`, `--runtime` and the labels by which a package asks for isolation, on the real backends."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from fix_installation import requires

if TYPE_CHECKING:
    from fix_installation import Installation

pytestmark = pytest.mark.root

KERNEL = "dmesg 2>/dev/null | grep -c gVisor; true"
"""gVisor's kernel greets in its own log."""


def test_runtimes_are_listed_with_what_they_can_do(aos: Installation) -> None:
    found = {one["name"]: one for one in aos("runtimes", "-o", "json").json}
    assert found["oci"]["usable"] and found["oci"]["default"]
    assert found["oci"]["isolation"] == "namespaces"
    assert "exec" in found["oci"]["capabilities"]
    assert found["oci"]["auto"] == "the lightest with any isolation"
    text = aos("runtimes").out
    assert "auto takes oci: the lightest with any isolation" in text


def test_one_that_is_not_installed_says_so_and_how_to_install_it(aos: Installation) -> None:
    config = aos.root.parent / "config.toml"
    config.write_text('[runtime]\ngvisor = "/no/such/runsc"\n')
    without = replace(aos, environ={"AOS_CONFIG": str(config)})
    found = {one["name"]: one for one in without("runtimes", "-o", "json").json}
    assert not found["gvisor"]["usable"]
    assert found["gvisor"]["problem"] == "/no/such/runsc is not installed"
    said = without("run", "--rm", "--runtime", "gvisor", "busybox:1", "-c", "true", check=125).err
    assert "/no/such/runsc is not installed" in said
    assert "https://gvisor.dev" in said
    said = without("run", "--rm", "--runtime", "nonsense", "busybox:1", "-c", "true", check=125).err
    assert "there is: oci, gvisor, containerd, kata, auto" in said


def test_an_agent_runs_on_a_kernel_of_its_own(aos: Installation) -> None:
    requires("runsc")
    assert aos("run", "--rm", "--runtime", "gvisor", "busybox:1", "-c", KERNEL).out != "0\n"
    assert aos("run", "--rm", "busybox:1", "-c", KERNEL).out == "0\n"
    aos("run", "--rm", "--runtime", "gvisor", "busybox:1", "-c", "exit 7", check=7)


def test_an_agent_on_gvisor_is_managed_as_any_other(aos: Installation) -> None:
    requires("runsc")
    aos("run", "-d", "--name", "a", "--runtime", "gvisor", "busybox:1", "-c", "echo ready; exec sleep 1000")
    assert aos("inspect", "a", "-o", "json").json[0]["runtime"] == "gvisor"
    assert aos("exec", "a", "sh", "-c", "echo inside; exit 3", check=3).out == "inside\n"
    aos.kill_daemon()
    assert aos("exec", "a", "hostname").out == "a\n"
    assert "ready" in aos("logs", "a").out
    aos("kill", "a")
    assert aos("wait", "a", check=False).out.strip() == "137"


def test_auto_takes_what_the_installation_insists_on(aos: Installation) -> None:
    requires("runsc")
    config = aos.root.parent / "config.toml"
    config.write_text('[runtime]\ndefault = "auto"\nisolation = "kernel"\n')
    strict = replace(aos, environ={"AOS_CONFIG": str(config)})
    assert strict("run", "--rm", "busybox:1", "-c", KERNEL).out != "0\n"
    said = strict("run", "--rm", "--runtime", "oci", "busybox:1", "-c", "true", check=125).err
    assert "oci: it isolates by namespaces, and kernel is asked for" in said
    [chosen] = [one for one in strict("runtimes", "-o", "json").json if one["auto"]]
    assert chosen["name"] == "gvisor"


def test_a_package_asks_for_isolation_by_its_labels(aos: Installation) -> None:
    requires("runsc")
    context = aos.root.parent / "labelled"
    context.mkdir()
    (context / "Agentfile").write_text(
        """\
apiVersion: aos.io/v1
kind: AgentPackage
metadata:
  name: careful
  version: 1.0.0
  labels: {aos.openos.dev/runtime: auto, aos.openos.dev/isolation: kernel, aos.openos.dev/needs: checkpoint}
from: busybox:1
entrypoint: {command: [/bin/sh, -c]}
"""
    )
    aos("build", "-t", "careful:1", context)
    assert aos("run", "--rm", "careful:1", KERNEL).out != "0\n"
    said = aos("run", "--rm", "--runtime", "oci", "careful:1", "true", check=125).err
    assert "oci: it isolates by namespaces" in said
