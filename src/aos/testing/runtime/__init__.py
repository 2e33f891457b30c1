"""What every runtime backend must do, as tests; whoever writes a backend runs them on it.

    import pytest
    from aos.testing.runtime import RuntimeConformance, shell_command

    class MyKit:
        def __init__(self, home, layers):
            self.home, self.layers = home, layers

        def make(self):
            return MyRuntime(self.home)

        def command(self, program, *args):
            return shell_command(program, *args)

        def traces(self):
            return frozenset(map(str, self.home.rglob("*")))

    class TestMyBackend(RuntimeConformance):
        @pytest.fixture(scope="class")
        @classmethod
        def kit(cls, tmp_path_factory):
            return MyKit(tmp_path_factory.mktemp("my"), layers_of_a_root_with_a_posix_shell())

A kit (`Kit`) makes instances of the backend over one and the same host, says how this suite's few programs are run
there, and what a sandbox can leave behind. One kit serves all cases of a class: each case removes what it made, and
is failed when something of it stays.

Which cases apply follows from `RuntimeInfo.capabilities`. The others are skipped with the capability that is not
declared, and one case of their own holds that each of those calls is refused with `capability-missing`. With

    from aos.testing.runtime.report import pytest_terminal_summary

in conftest.py the run ends with what applied to which backend, and what did not, and why.

One file a subject; needs pytest, and nothing else of AOS does.
"""

from __future__ import annotations

from aos.testing.runtime.adoption import Adoption
from aos.testing.runtime.attaching import Attaching
from aos.testing.runtime.cases import Cases, Run, case, collect, needs
from aos.testing.runtime.checkpoints import Checkpoints
from aos.testing.runtime.cleaning import Cleaning
from aos.testing.runtime.concurrency import Concurrency
from aos.testing.runtime.deletion import Deletion
from aos.testing.runtime.endings import Endings
from aos.testing.runtime.environment import Environment
from aos.testing.runtime.execs import Execs
from aos.testing.runtime.execs_cut_short import ExecsCutShort
from aos.testing.runtime.identity import Identity
from aos.testing.runtime.kit import SHELL, Kit, shell_command
from aos.testing.runtime.lifecycle import Lifecycle
from aos.testing.runtime.limits import LimitsHold
from aos.testing.runtime.logs import Logs
from aos.testing.runtime.mounts import Mounts
from aos.testing.runtime.networks import Networks
from aos.testing.runtime.pausing import Pausing
from aos.testing.runtime.refusals import Refusals
from aos.testing.runtime.roots import Roots
from aos.testing.runtime.terminals import Terminals
from aos.testing.runtime.users import Users

__all__ = ["SHELL", "Cases", "Kit", "Run", "RuntimeConformance", "case", "collect", "needs", "shell_command"]


class RuntimeConformance(
    Identity,
    Lifecycle,
    Deletion,
    Refusals,
    Endings,
    Environment,
    Attaching,
    Logs,
    Execs,
    ExecsCutShort,
    Terminals,
    Pausing,
    LimitsHold,
    Roots,
    Users,
    Mounts,
    Networks,
    Adoption,
    Checkpoints,
    Concurrency,
    Cleaning,
):
    """All of it."""
