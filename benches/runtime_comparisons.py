"""Other runtimes than runc, each beside the same runtime under podman, or bare."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from benches.measure import Command, interleave
from benches.ours import Installation
from benches.outcome import Outcome
from benches.peers import Podman, Runc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benches.outcome import Contenders

__all__ = ["exec_in_gvisor", "run_in_gvisor", "run_with_crun"]

_T = TypeVar("_T")
_UNIFIED = Path("/sys/fs/cgroup/unified")
_CLONE_NEWNS, _MS_REC_PRIVATE, _MNT_DETACH = 0x20000, 0x44000, 2
_RUNSC = ("--ignore-cgroups", "--overlay2=none", "--file-access-mounts=shared", "--platform=systrap")
"""As AOS calls it (aos.runtime.backends.gvisor)."""
_SLEEP = ("/bin/sleep", "1000000")


def run_with_crun(contenders: Contenders, rounds: int) -> Outcome:
    """`aos run` of true with crun, beside podman with it and crun alone."""
    crun = shutil.which("crun")
    if crun is None:
        return _missing("crun")
    home = contenders.home / "crun"
    ours = Installation(home / "ours", f'[runtime]\noci = "{crun}"\n')
    ours.build_busybox()
    bare = Runc(home / "bare", contenders.rootfs, crun)
    bundle = bare.bundle("bundle-true", ["/bin/true"])
    podman = Podman(contenders.podman.home, contenders.rootfs, crun)

    def run() -> Outcome:
        try:
            series = interleave(
                [
                    Command("aos run, crun", ours.true(), ours.environ),
                    Command("podman run, crun", podman.run("/bin/true")),
                    Command("crun run", bare.run(bundle, "true-{n}"), unique=True),
                ],
                rounds,
            )
        finally:
            ours.end()
        outcome = Outcome(series=series)
        outcome.at_most_ratio("aos run true with crun", series[0], series[1], 0.3)
        return outcome

    return _without_hybrid_cgroups(run)


def run_in_gvisor(contenders: Contenders, rounds: int) -> Outcome:
    """`aos run` of true in gVisor, beside runsc alone."""
    ours, runsc = contenders.ours, shutil.which("runsc")
    if runsc is None:
        return _missing("runsc")
    with _bare_runsc(contenders, runsc) as bare:
        bundle = bare.bundle("bundle-true", ["/bin/true"])
        series = interleave(
            [
                Command("aos run, gvisor", ours.true("--runtime", "gvisor"), ours.environ),
                Command("runsc run", bare.run(bundle, "true-{n}"), unique=True),
            ],
            rounds,
        )
    outcome = Outcome(series=series)
    outcome.at_most_ratio("aos run true in gVisor", series[0], series[1], 1.5)
    return outcome


def exec_in_gvisor(contenders: Contenders, rounds: int) -> Outcome:
    """`aos exec true` in an agent that sleeps in gVisor, beside `runsc exec` in the same."""
    ours, runsc = contenders.ours, shutil.which("runsc")
    if runsc is None:
        return _missing("runsc")
    with _bare_runsc(contenders, runsc) as bare:
        ours.start("gvisor", "--runtime", "gvisor")
        bare.start("gvisor", _SLEEP)
        try:
            series = interleave(
                [
                    Command("aos exec, gvisor", ours.argv("exec", "gvisor", "/bin/true"), ours.environ),
                    Command("runsc exec", bare.exec("gvisor", "/bin/true")),
                ],
                rounds,
            )
        finally:
            ours.remove("gvisor")
            bare.remove("gvisor")
    outcome = Outcome(series=series)
    outcome.at_most_beyond("aos exec true in gVisor", series[0], series[1], 15)
    return outcome


@contextmanager
def _bare_runsc(contenders: Contenders, path: str) -> Iterator[Runc]:
    """runsc as AOS calls it; afterwards take away the empty network namespace that it binds beside its state."""
    home = contenders.home / "runsc"
    yield Runc(home, contenders.rootfs, path, (*_RUNSC, "--network=none"))
    subprocess.run(["umount", home / "state/null-netns"], capture_output=True, check=False)
    shutil.rmtree(home)


def _missing(program: str) -> Outcome:
    return Outcome(facts={"not measured": f"{program} is not installed"})


def _without_hybrid_cgroups(work: Callable[[], _T]) -> _T:
    """In a thread whose mount namespace lacks the unified hierarchy of a hybrid host, which crun refuses; all that it
    starts is in there, too."""
    results: list[_T] = []
    errors: list[BaseException] = []
    libc = ctypes.CDLL(None, use_errno=True)

    def enter() -> None:
        for failed in (
            libc.unshare(_CLONE_NEWNS),
            libc.mount(None, b"/", None, _MS_REC_PRIVATE, None),
            libc.umount2(os.fsencode(_UNIFIED), _MNT_DETACH),
        ):
            if failed:
                raise OSError(ctypes.get_errno(), f"without {_UNIFIED}")

    def run() -> None:
        try:
            if (_UNIFIED / "cgroup.procs").exists():
                enter()
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
