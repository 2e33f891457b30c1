"""`aos exec`: another command inside a running agent."""

from __future__ import annotations

import posix

from aos.cli import _node, _values
from aos.cli._options import Option, Verb
from aos.cli._session import Session
from aos.cli._streams import CLOSED, DETACHED
from aos.cli._terminal import dimensions
from aos.errors import FailedPrecondition

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from aos.cli._options import Arguments

__all__ = ["VERB", "main"]

VERB = Verb(
    "Run another command inside a running agent; its exit code becomes that of this command",
    "AGENT COMMAND ARGS...",
    options=(
        Option("interactive", "i", help="Forward standard input"),
        Option("tty", "t", help="Give it a terminal; Ctrl-P Ctrl-Q leaves it running"),
        Option("env", "e", "KEY[=VALUE]", "Set a variable; without a value, pass ours on", repeat=True),
        Option("user", "u", "USER[:GROUP]", "Run it as this user of the agent"),
        Option("replica", "", "NUMBER", "In this replica (default: the first that runs)"),
        Option("workdir", "w", "DIRECTORY", "Run it in this directory of the agent"),
    ),
    stop_at_first_positional=True,
)


def main(args: Arguments) -> int:
    if args["tty"] and args["interactive"] and not posix.isatty(0):
        raise FailedPrecondition(
            "-t with -i needs a terminal, and standard input is none",
            code="no-terminal",
            hint="leave -t away when input comes from a pipe or a file",
        )
    call: dict[str, Any] = {
        "agent": args["agent"],
        "args": [args["command"], *args["args"]],
        "terminal": args["tty"],
        "stdin": args["interactive"],
    }
    if args["env"]:
        call["env"] = _values.environment(args["env"], posix.environ)
    if args["user"] is not None:
        call["user"] = args["user"]
    if args["workdir"] is not None:
        call["work_dir"] = args["workdir"]
    if args["replica"] is not None:
        call["replica"] = _values.count(args["replica"], "--replica") - 1
    size = dimensions() if args["tty"] else None
    if size is not None:
        call["rows"], call["columns"] = size
    with (
        Session(stdin=args["interactive"], terminal=args["tty"], forward=False) as session,
        _node.connect() as node,
    ):
        made, descriptors = node.call_with_descriptors("agent.exec", **call)
        answer = _node.Answer(node, "exec.start", exec=made["exec"])
        outcome = session.carry(descriptors, answer)
        if outcome == DETACHED:
            return 0
        if outcome == CLOSED:
            raise BrokenPipeError
        code: int = answer.result()["exit"]["shell_code"]
    return code
