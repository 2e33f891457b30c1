"""A person and a process: its streams are theirs, their signals are its, until one of them goes away."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the C module: signal costs an enum
import posix
import sys
import time
from _socket import socket

from aos.cli import _node
from aos.cli._streams import pump, resize
from aos.cli._terminal import DETACH, Terminal
from aos.cli._values import signal_name
from aos.errors import AosError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from aos.cli._node import Answer

__all__ = ["Session"]

_GRACE = 10.0
"""Seconds that an agent has to stop, as for `aos stop`."""
_IMPATIENT = 2.0
"""Seconds in which three interrupts mean: kill it."""


class Session:
    """Standard streams and signals for the time that it is entered.

    Without a terminal in raw mode, SIGINT, SIGTERM, SIGHUP and SIGQUIT go to the agent that `signals` names (kept
    until it does; three interrupts within 2 s kill it). An agent that would be started again they stop. In raw mode
    keys do that work, and such a signal ends us alone. With `forward` off they do to us what they always do.
    """

    def __init__(self, *, stdin: bool, terminal: bool, forward: bool = True) -> None:
        self.stdin = stdin
        self.terminal = terminal
        self._screen = Terminal()
        self._forwards = forward
        self._raw = terminal and stdin and posix.isatty(0)
        self._agent: str | None = None
        self._stops = False
        self._stopping: list[Any] = []
        self._early: list[int] = []
        self._interrupts: list[float] = []
        self._control: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Session:
        handlers: dict[int, Any] = {}
        if self._raw or self._forwards:
            act = self._leave if self._raw else self._forward
            handlers = dict.fromkeys((_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP, _signal.SIGQUIT), act)
        if self.terminal:
            handlers |= {_signal.SIGWINCH: self._resize, _signal.SIGCONT: self._resize}
        for signum, handler in handlers.items():
            before = _signal.getsignal(signum)
            if before != _signal.SIG_IGN:  # nohup, or a shell's background: who ignored it meant it
                self._before[signum] = before
                _signal.signal(signum, handler)
        return self

    def __exit__(self, *_: object) -> None:
        self._screen.restore()
        for signum, handler in self._before.items():
            _signal.signal(signum, handler)

    def signals(self, agent: str, *, stop: bool = False) -> None:
        """Name the agent that signals go to. `stop`: they stop it, as one that it dies of would start it again."""
        self._agent, self._stops = agent, stop
        early, self._early = self._early, []
        for signum in early:
            self._send(signum)

    def carry(self, descriptors: list[int], answer: Answer) -> str:
        """Pump until the end; see `_streams.pump`. The descriptors are closed afterwards."""
        connection = socket(fileno=descriptors[0])
        self._control = descriptors[1] if len(descriptors) > 1 else None
        try:
            if self._raw:
                self._screen.raw()
            if self._control is not None:
                resize(self._control)
            return pump(connection, answer, stdin=self.stdin, detach=DETACH if self._raw else b"")
        finally:
            self._screen.restore()
            connection.close()
            control, self._control = self._control, None
            if control is not None:
                posix.close(control)

    def _forward(self, signum: int, _frame: object) -> None:
        if signum == _signal.SIGINT:
            now = time.monotonic()
            self._interrupts = [at for at in self._interrupts if now - at < _IMPATIENT] + [now]
            if len(self._interrupts) == 3:
                if self._agent is None:
                    raise KeyboardInterrupt
                signum = _signal.SIGKILL
        if self._agent is None:
            self._early.append(signum)
        else:
            self._send(signum)

    def _send(self, signum: int) -> None:
        name = signal_name(signum)
        try:
            if self._stops:
                grace = 0.0 if signum == _signal.SIGKILL else _GRACE
                node = _node.connect()  # kept until we end: its answer comes when the agent has ended
                node.send("agent.stop", agent=self._agent, timeout=grace)
                self._stopping.append(node)
            else:
                _node.call("agent.kill", agent=self._agent, signal=name)
        except (AosError, OSError) as error:
            if getattr(error, "kind", "") != "NotFound":
                print(f"aos: SIG{name} did not reach the agent: {error}", file=sys.stderr)

    def _leave(self, signum: int, _frame: object) -> None:
        raise SystemExit(128 + signum)

    def _resize(self, signum: int, _frame: object) -> None:
        if signum == _signal.SIGCONT and self._raw and self._control is not None:
            self._screen.raw()
        resize(self._control)
