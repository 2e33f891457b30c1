"""What every test may use; the fixtures live in fix_*.py, one concept each."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from aos.testing.runtime.report import pytest_terminal_summary
from fix_build import builder
from fix_containerd import containerd1, containerd2
from fix_installation import aos, busybox_root, installation
from fix_network import world
from fix_python import debian_root, python, python_root
from fix_registry import docker_registry, stub_registry
from fix_rootless import ordinary_user

__all__ = [
    "aos",
    "builder",
    "busybox_root",
    "containerd1",
    "containerd2",
    "debian_root",
    "docker_registry",
    "installation",
    "ordinary_user",
    "pytest_terminal_summary",
    "python",
    "python_root",
    "stub_registry",
    "world",
]

# Where tools/peers puts what the distribution does not carry. After all else: an installed program is preferred.
PEERS = Path(
    os.environ.get("AOS_PEERS")
    or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "aos-peers"
)
os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:{PEERS / 'bin'}"

# A shell starts what runs in its background with these ignored, and every child would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # nohup: it goes on meaning us, and no child
    signal.signal(signal.SIGHUP, lambda *_: None)

# How quick an example is says something about the machine, not about what is tested.
settings.register_profile("aos", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("aos")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `root` are skipped for other users, and say so."""
    if os.getuid() != 0:
        for item in items:
            if item.get_closest_marker("root"):
                item.add_marker(pytest.mark.skip(reason="needs root (sudo make test)"))
