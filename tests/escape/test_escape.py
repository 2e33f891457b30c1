"""Nothing gets out of a sandbox; and each attempt does get out, or further, where nothing confines it.

The same attempts (attempts.py) run in sandboxes as AOS makes them, on each backend, and as a control in sandboxes that
the test has loosened: an attempt that succeeds nowhere would prove nothing.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from aos.runtime.backends.gvisor import Runsc
from aos.runtime.backends.oci import Runc
from aos.runtime.spec import Confinement
from escape.loose import Host, Loose, a_host, held_here, run_attempts, try_on_host
from fix_installation import requires, requires_root

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.root, pytest.mark.backends, pytest.mark.timeout(300)]

ALONE = (
    *("proc_sys_write", "core_pattern", "fresh_proc", "sysrq_trigger", "kcore"),
    *("kernel_log", "sys_firmware", "sys_write", "debugfs", "mount_tmpfs", "mount_propagation"),
    *("remount_read_only_bind", "pivot_root", "open_by_handle", "disk_node", "mem_node", "kmsg_node"),
    *("tun_node", "loop_control", "host_terminal", "release_agent", "raise_limit", "outer_group"),
    *("gain_capability", "ambient_capability", "set_user_id", "user_namespace", "user_namespace_clone3"),
    *("mount_namespace", "bpf", "perf_event", "io_uring", "userfault", "fanotify", "kexec", "load_module"),
    *(
        "unload_module",
        "reboot",
        "swap",
        "accounting",
        "clock",
        "hostname",
        "domain_name",
        "ports",
        "priority",
    ),
    *("raw_socket", "packet_socket", "configure_network", "key_of_host"),
)
"""What a sandbox with everything but namespaces of the host's succeeds with."""
PROCESSES = (
    *("see_host_process", "signal_host_process", "trace_host_process", "read_host_memory"),
    *("root_of_host_process", "setns"),
)
"""… with the host's process ids."""
NETWORK = ("abstract_socket", "host_port")
"""… with the host's network."""
SPECIAL = ("metadata", "chroot_breakout", "leaked_descriptors", "overwrite_runtime")
"""… with something for each."""
MASKED = ("proc_sys_remount", "unmask")
"""… with the paths that are masked, and privileges."""
ATTEMPTS = (*ALONE, *MASKED, *PROCESSES, *NETWORK, *SPECIAL)

OF_ITS_OWN_KERNEL = frozenset(
    {
        *("proc_sys_write", "fresh_proc", "mount_tmpfs", "user_namespace", "user_namespace_clone3"),
        *("mount_namespace", "io_uring", "raw_socket", "packet_socket", "set_user_id", "overwrite_runtime"),
        *("priority", "key_of_host", "outer_group", "kernel_log", "sysrq_trigger"),
    }
)
"""What gVisor may grant, for it grants it of its own kernel: the host has no part in it."""


@pytest.fixture(scope="module")
def host(busybox_root: Path) -> Iterator[Host]:
    requires_root()
    requires("nsenter")
    with a_host(busybox_root) as made:
        yield made


CONFINED = ["runc", "runc-own-ids", "runc-agent-profile", "gvisor"]


def _confined(host: Host, backend: str) -> dict[str, tuple[bool | None, str]]:
    key = (backend,)
    if key not in host.found:
        if backend == "gvisor":
            requires("runsc")
            names = [name for name in ATTEMPTS if name != "overwrite_runtime"]
            host.found[key] = run_attempts(host, Runsc(), names)
        else:
            users: Literal["private", "host"] = "private" if backend == "runc-own-ids" else "host"
            host.found[key] = run_attempts(
                host,
                Runc("runc"),
                ATTEMPTS,
                confinement=Confinement(
                    users=users, seccomp="agent" if backend == "runc-agent-profile" else ""
                ),
                terminal=users == "host",
            )
    return host.found[key]


@pytest.mark.parametrize("backend", CONFINED)
@pytest.mark.parametrize("name", ATTEMPTS)
def test_it_does_not_get_out(host: Host, backend: str, name: str) -> None:
    if backend == "gvisor" and name in OF_ITS_OWN_KERNEL:
        pytest.skip(f"{name} asks for what gVisor has of its own")
    through, words = _confined(host, backend)[name]
    assert through is False, words


def _loose(host: Host, name: str) -> tuple[bool | None, str]:
    """How far an attempt gets that nothing but what it needs confines."""
    names: tuple[str, ...]
    if name in ALONE:
        key, names, tool = "alone", ALONE, Loose(terminal=host.terminal)
    elif name in MASKED:
        key, names, tool = "masked", MASKED, Loose(masks=True)
    elif name in PROCESSES:
        key, names, tool = "processes", PROCESSES, Loose(shared=("pid",))
    elif name in NETWORK:
        key, names, tool = "network", NETWORK, Loose(shared=("network",))
    else:
        key, names, tool = name, (name,), Loose(network=host.metadata if name == "metadata" else "")
    if (key, "loose") not in host.found:
        host.found[key, "loose"] = run_attempts(
            host,
            tool,
            names,
            terminal=key == "alone",
            jail=name == "chroot_breakout",
            prefix="exec 9</etc/hosts; " if name == "leaked_descriptors" else "",
        )
    return host.found[key, "loose"][name]


@pytest.mark.parametrize("name", ATTEMPTS)
def test_it_gets_further_where_nothing_confines_it(host: Host, name: str) -> None:
    """The control."""
    missing = _missing(name)
    if missing:
        pytest.skip(f"missing on this host: {missing}")
    through, words = _loose(host, name)
    if words.startswith("ENOSYS"):
        pytest.skip(f"missing on this host: the system call of {name}")
    if not through and name in ("disk_node", "ports") and not try_on_host(host, name)[0]:
        pytest.skip(f"this host refuses its own root: {name}: {words}")
    assert through is True, words


def _missing(name: str) -> str:
    """What of the host an attempt is about, and this host lacks."""
    held = held_here()
    needs = {
        "kcore": "/proc/kcore",
        "sys_firmware": "/sys/firmware",
        "mem_node": "/dev/mem",
        "kmsg_node": "/dev/kmsg",
        "loop_control": "/dev/loop-control",
        "sys_write": "/sys/kernel/mm/transparent_hugepage",
        "sysrq_trigger": "/proc/sysrq-trigger",
        "core_pattern": "/proc/sys/kernel/core_pattern",
    }
    if name in needs and not Path(needs[name]).exists():
        return needs[name]
    if name == "release_agent" and not any(Path("/sys/fs/cgroup").glob("*/release_agent")):
        return "cgroup version 1"
    if name == "metadata" and not shutil.which("ip"):
        return "ip (iproute2)"
    return "" if "CAP_SYS_ADMIN" in held else "CAP_SYS_ADMIN"
