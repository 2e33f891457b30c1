"""What an installation lets agents have of its host."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from aos.errors import PermissionDenied
from aos.runtime.policy import Policy
from aos.runtime.spec import AgentSpec, Confinement, Mount, ProcessSpec, Rootfs

SPEC = AgentSpec(ProcessSpec(("true",)), Rootfs(()))
VOLUMES = Path("/var/lib/aos/volumes")


def _refused(policy: Policy, spec: AgentSpec) -> str:
    with pytest.raises(PermissionDenied) as refused:
        policy.check(spec, VOLUMES)
    assert refused.value.hint
    return refused.value.code


def _mounting(path: str) -> AgentSpec:
    return replace(SPEC, mounts=(Mount("bind", "/x", Path(path)),))


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/etc", "/etc/shadow", "/etc/ssh/keys", "/proc", "/proc/1", "/sys/fs", "/dev/mem", "/run"),
        *("/run/docker.sock", "/var/run/docker.sock", "/var", "/var/lib", "/var/lib/containerd/x", "/root"),
        *("/var/lib/aos", "/var/lib/aos/content", "/srv/../etc/shadow"),
    ],
)
def test_the_hosts_own(path: str) -> None:
    assert _refused(Policy(), _mounting(path)) == "mount-refused"


@pytest.mark.parametrize(
    "path", ["/srv", "/home/alice", "/root/project", "/etc/hosts", "/usr", "/var/lib/aos/volumes/v"]
)
def test_what_is_the_users(path: str) -> None:
    checked = Policy().check(_mounting(path), VOLUMES)
    assert not checked.mounts[0].follow


def test_own_directories_wherever_they_are(tmp_path: Path) -> None:
    policy = Policy(own=(tmp_path / "root",))
    assert _refused(policy, _mounting(str(tmp_path))) == "mount-refused"
    assert _refused(policy, _mounting(str(tmp_path / "root/content"))) == "mount-refused"
    policy.check(_mounting(str(tmp_path / "other")), VOLUMES)


def test_an_allow_list_names_what_is_denied_otherwise() -> None:
    narrow = Policy(mounts=(Path("/srv"), Path("/run/user/1000"), Path("/etc")))
    assert _refused(narrow, _mounting("/home")) == "mount-refused"
    narrow.check(_mounting("/run/user/1000/wayland"), VOLUMES)
    assert _refused(narrow, _mounting("/run/user/1001")) == "mount-refused"
    narrow.check(_mounting("/etc"), VOLUMES)
    assert _refused(narrow, _mounting("/etc/shadow")) == "mount-refused"


def test_a_link_is_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/shadow")
    (tmp_path / "fine").symlink_to(tmp_path)
    assert _refused(Policy(), _mounting(str(tmp_path / "link"))) == "mount-refused"
    checked = Policy().check(_mounting(str(tmp_path / "fine")), VOLUMES)
    assert checked.mounts[0].source == tmp_path.resolve()


def _asking(**what: object) -> AgentSpec:
    return replace(SPEC, confinement=Confinement(**what))  # type: ignore[arg-type]


def test_capabilities() -> None:
    Policy().check(_asking(add_capabilities=("CAP_NET_RAW", "CAP_CHOWN")), VOLUMES)
    assert _refused(Policy(), _asking(add_capabilities=("CAP_SYS_ADMIN",))) == "capability-refused"
    assert _refused(Policy(), _asking(add_capabilities=("ALL",))) == "capability-refused"
    Policy(capabilities=frozenset({"CAP_SYS_ADMIN"})).check(
        _asking(add_capabilities=("CAP_SYS_ADMIN",)), VOLUMES
    )
    none = Policy(capabilities=frozenset())
    assert _refused(none, _asking(add_capabilities=("CAP_NET_RAW",))) == "capability-refused"


def test_profiles_of_system_calls(tmp_path: Path) -> None:
    for name in ("", "default", "agent", "/etc/aos/seccomp/own.json"):
        Policy().check(_asking(seccomp=name), VOLUMES)
    for name in ("unconfined", str(tmp_path / "own.json"), "/etc/aos/seccomp/../../x.json"):
        assert _refused(Policy(), _asking(seccomp=name)) == "seccomp-refused"
        Policy(unconfined=True).check(_asking(seccomp=name), VOLUMES)


def test_user_ids_of_the_host() -> None:
    Policy().check(_asking(users="host"), VOLUMES)
    assert _refused(Policy(host_users=False), _asking(users="host")) == "userns-refused"


def test_who_does_not_ask_for_the_hosts_must_have_its_own_where_that_is_demanded() -> None:
    demanding = Policy(own_users=True)
    for asked, checked in (("", "private"), ("auto", "private"), ("private", "private"), ("host", "host")):
        assert demanding.check(_asking(users=asked), VOLUMES).confinement.users == checked
        assert Policy().check(_asking(users=asked), VOLUMES).confinement.users == asked
