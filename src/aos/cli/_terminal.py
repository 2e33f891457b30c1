"""The person's terminal: raw mode and back on every way out, its size, the keys that detach."""

from __future__ import annotations

import posix

__all__ = ["DETACH", "Terminal", "dimensions"]

DETACH = b"\x10\x11"
"""Ctrl-P Ctrl-Q, as in docker."""


def dimensions() -> tuple[int, int] | None:
    """Rows and columns of the terminal on standard output or input; None when neither is one."""
    for descriptor in (1, 0):
        try:
            size = posix.get_terminal_size(descriptor)
        except OSError:
            continue
        if size.lines and size.columns:
            return size.lines, size.columns
    return None


class Terminal:
    """Standard input in raw mode. Does nothing when it is no terminal, or for the second time."""

    def __init__(self) -> None:
        self._before: list[object] | None = None

    def raw(self) -> None:
        """As cfmakeraw(3): every key reaches the agent, none is a signal for us."""
        if not posix.isatty(0):
            return
        import termios  # a library to load, for which most have no use

        mode = termios.tcgetattr(0)
        if self._before is None:
            self._before = termios.tcgetattr(0)
        mode[0] &= ~(
            termios.IGNBRK
            | termios.BRKINT
            | termios.PARMRK
            | termios.ISTRIP
            | termios.INLCR
            | termios.IGNCR
            | termios.ICRNL
            | termios.IXON
        )
        mode[1] &= ~termios.OPOST
        mode[2] = mode[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        termios.tcsetattr(0, termios.TCSADRAIN, mode)

    def restore(self) -> None:
        before, self._before = self._before, None
        if before is None:
            return
        import termios

        try:
            termios.tcsetattr(0, termios.TCSADRAIN, before)  # type: ignore[arg-type]
        except termios.error:
            return  # the terminal is gone
