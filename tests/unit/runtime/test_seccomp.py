"""Which system calls the profiles let pass."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from aos.runtime.capabilities import CAPABILITIES
from aos.runtime.seccomp import DEFAULT_PROFILES, load_seccomp

if TYPE_CHECKING:
    from pathlib import Path

DANGEROUS = (
    *("bpf", "perf_event_open", "io_uring_setup", "userfaultfd", "mount", "unshare", "setns", "keyctl"),
    *("add_key", "request_key", "pivot_root", "kexec_load", "open_by_handle_at", "init_module", "clone3"),
)


def _allowed(profile: dict[str, Any]) -> set[str]:
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    rules = [
        rule for rule in profile["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" and not rule.get("args")
    ]
    return {name for rule in rules for name in rule["names"]}


@pytest.fixture
def default() -> set[str]:
    if not any(path.exists() for path in DEFAULT_PROFILES):
        pytest.skip("missing: containers-common (make test installs it)")
    return _allowed(load_seccomp("", CAPABILITIES))


def test_the_default_has_no_way_to_more_of_the_kernel(default: set[str]) -> None:
    assert not default & set(DANGEROUS)
    assert {"read", "execve", "futex"} <= default


def test_the_agent_profile_is_narrower(default: set[str]) -> None:
    agent = _allowed(load_seccomp("agent", CAPABILITIES))
    assert not agent & {*DANGEROUS, "ptrace", "process_vm_readv", "personality", "kcmp"}
    assert {"read", "execve", "socket", "futex", "epoll_wait", "openat2"} <= agent
    assert len(agent) < len(default)


@pytest.mark.parametrize("name", ["", "agent"])
def test_threads_but_no_namespaces(name: str, default: set[str]) -> None:
    rules = [rule for rule in load_seccomp(name, CAPABILITIES)["syscalls"] if "clone" in rule["names"]]
    assert [rule["args"][0]["value"] for rule in rules] == [0x7E020000]
    [clone3] = [rule for rule in load_seccomp(name, CAPABILITIES)["syscalls"] if "clone3" in rule["names"]]
    assert clone3["errnoRet"] == 38  # the C library goes on with clone


def test_an_administrators_own_is_taken_as_it_is(tmp_path: Path) -> None:
    own = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": ["unshare"], "action": "SCMP_ACT_ALLOW"}],
    }
    (tmp_path / "own.json").write_text(json.dumps(own))
    assert _allowed(load_seccomp(str(tmp_path / "own.json"), CAPABILITIES)) == {"unshare"}


def test_who_may_administer_may_mount(default: set[str]) -> None:
    assert "mount" in _allowed(load_seccomp("", (*CAPABILITIES, "CAP_SYS_ADMIN")))
