"""What the suite asks of whoever runs it: instances of the backend, a few programs, and what can be left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from aos.oci.layer import Layer
    from aos.runtime.protocol import Runtime

__all__ = ["SHELL", "Kit", "shell_command"]

SHELL = {
    "exit": 'exit "$1"',
    "print": 'echo "$1"; echo "$2" >&2',
    "cat": "exec cat",
    "sleep": "exec sleep 1000",
    "env": 'eval "echo \\"\\$$1\\""',
    "hostname": "hostname",
    "count": "n=0; while :; do n=$((n+1)); echo $n; sleep 0.03; done",
    "lines": 'n=0; while [ $n -lt "$1" ]; do n=$((n+1)); echo "line $n"; done',
    "tail": 'printf %s "$1"',
    "size": "wc -c | tr -d ' '",
    "trap": 'trap "exit $2" "$1"; echo ready; while :; do sleep 0.02; done',
    "ignore": 'trap "" TERM; echo ready; while :; do sleep 0.02; done',
    "die": 'kill -"$1" $$; sleep 5',
    "hog": "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x$x; done",
    "window": "while read x; do stty size; done",
    "sh": 'eval "$1"',
}
"""The programs, for a root file system with a POSIX shell and the usual small commands."""


class Kit(Protocol):
    layers: tuple[Layer, ...]
    """Of the root file system that the programs are in."""

    def make(self) -> Runtime:
        """An instance; all of them see the same sandboxes, as a daemon sees those of the one before it."""
        ...

    def command(self, program: str, *args: str) -> tuple[str, ...]:
        """The command line of a program of this suite. `shell_command` knows them all; they are:

        `exit CODE`; `print OUT ERR`: a line to each stream; `cat`: input to output until its end, as it comes; `sleep`:
        for ever; `env NAME`: that variable; `hostname`; `missing`: one that does not exist; `count`: 1, 2, 3 and so on,
        a line each, every few hundredths of a second, but not while it is paused; `lines N`: `line 1` to `line N`;
        `tail TEXT`: the text without a line end; `size`: how many bytes the input had, once it has ended; `trap SIGNAL
        CODE`: say `ready`, and exit with that code at that signal; `ignore`: say `ready`, and do not end at SIGTERM; `die
        SIGNAL`: of that signal, by its own hand; `hog`: take memory until there is none; `window`: at each line of input
        say `ROWS COLUMNS` of the terminal. And for backends that declare `files`: `sh SCRIPT`."""
        ...

    def traces(self) -> frozenset[str]:
        """All that a sandbox of this backend could leave on the host, a line each, wherever it could: mounts, cgroups,
        processes, namespaces, network links, files. What is there for all sandboxes and stays does not matter: the
        suite compares before and after."""
        ...


def shell_command(program: str, *args: str) -> tuple[str, ...]:
    """`Kit.command` for a root file system with a POSIX shell."""
    return ("no-such-command",) if program == "missing" else ("sh", "-c", SHELL[program], "sh", *args)
