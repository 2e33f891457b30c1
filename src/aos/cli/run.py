"""`aos run`: start an agent from a package."""

from __future__ import annotations

import posix
import sys

from aos.cli import _node, _values
from aos.cli._options import Option, Verb
from aos.cli._records import death
from aos.cli._session import Session
from aos.cli._streams import CLOSED, DETACHED, ENDED
from aos.cli._terminal import dimensions
from aos.errors import FailedPrecondition, InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from aos.cli._options import Arguments

__all__ = ["SANDBOX", "VERB", "main", "sandbox"]

SANDBOX = (
    Option("interactive", "i", help="Forward standard input"),
    Option("tty", "t", help="Give it a terminal; Ctrl-P Ctrl-Q leaves it running"),
    Option("env", "e", "KEY[=VALUE]", "Set a variable; without a value, pass ours on", repeat=True),
    Option(
        "volume",
        "v",
        "SOURCE:TARGET[:ro]",
        "Show it a file or directory of this host (/… or ./…), or a volume of that name",
        repeat=True,
    ),
    Option("entrypoint", "", "COMMAND", "Replace the entrypoint's command"),
    Option("hostname", "", "NAME", "Its host name"),
    Option("memory", "m", "SIZE", "Most memory, such as 512m or 2g"),
    Option("cpus", "", "NUMBER", "Most CPUs, such as 0.5"),
    Option("pids", "", "NUMBER", "Most processes and threads"),
    Option(
        "disk",
        "",
        "SIZE",
        "Most that it writes to its own files, such as 1g (default: what the disk has)",
    ),
    Option("ulimit", "", "NAME=SOFT[:HARD]", "A limit of each process, such as nofile=1024", repeat=True),
    Option("read-only", help="Let it write to mounts and --tmpfs alone"),
    Option("tmpfs", "", "TARGET[:SIZE]", "Memory to write to, such as /tmp:64m", repeat=True),
    Option("secret", "", "NAME=FILE", "A file /run/secrets/NAME, in memory; NAME=env:VARIABLE", repeat=True),
    Option("cap-add", "", "NAME", "Add a capability, such as NET_RAW", repeat=True),
    Option("cap-drop", "", "NAME", "Take a capability away, or ALL", repeat=True),
    Option("device", "", "VENDOR/CLASS=NAME", "A device that the host describes (CDI)", repeat=True),
    Option(
        "security-opt",
        "",
        "KEY=VALUE",
        "seccomp=default, agent, unconfined or a file; label=an AppArmor profile or SELinux context",
        repeat=True,
    ),
    Option(
        "userns",
        "",
        "MODE",
        "Its user ids: private (a range of its own), host, or auto",
        choices=("auto", "private", "host"),
    ),
    Option("network", "", "MODE", "none (loopback only), bridge, host, or agent:NAME (that of another)"),
    Option("publish", "p", "[[IP:]HOST:]PORT", "Let a port of the host lead to it", repeat=True),
    Option("publish-all", "P", help="Publish every port that the package names"),
    Option(
        "egress",
        "",
        "RULE",
        "What it may reach: internet, none, or rules as 'allow NET tcp 443'",
        repeat=True,
    ),
    Option("runtime", "", "NAME", "The runtime that isolates it, or auto; aos runtimes lists them"),
)
"""What makes one sandbox another; the other options are the agent's."""

VERB = Verb(
    "Start an agent from a package; its exit code becomes that of this command. Arguments after the reference "
    "replace those of the entrypoint",
    "REFERENCE ARGS...",
    options=(
        Option("detach", "d", help="Print the agent's id and leave it running"),
        Option("rm", help="Remove it when it has finished"),
        Option("name", "", "NAME", "Give it a name (default: one is made up)"),
        *SANDBOX,
        Option(
            "restart",
            "",
            "POLICY",
            "never, on-failure[:N], always or unless-stopped (else as the package says; --rm, -i and -t: never)",
        ),
        Option("restart-limit", "", "N/TIME", "Give up after N restarts within TIME, such as 5/1m"),
        Option("replicas", "", "N", "Run that many processes of it, each supervised by itself", default="1"),
        Option("dry-run", help="Print what would be run, as JSON, and start nothing"),
    ),
    stop_at_first_positional=True,
)


_CONFINING = (
    *("disk", "ulimit", "read-only", "tmpfs", "secret"),
    *("cap-add", "cap-drop", "device", "security-opt", "userns"),
)


def main(args: Arguments) -> int:
    call = _call(args)
    if args["dry-run"]:
        from aos.cli._output import print_json

        print_json(_node.call("agent.run", **call)["spec"])
        return 0
    if args["detach"]:
        print(_node.call("agent.run", **call)["agent"])
        return 0
    with Session(stdin=args["interactive"], terminal=args["tty"]) as session, _node.connect() as node:
        started, descriptors = node.call_with_descriptors("agent.run", **call)
        agent = started["agent"]
        answer = _node.Answer(node, "agent.wait", agent=agent)
        # Several processes, one after the other (as asked for, or as the package says) or at once: from their logs.
        several = started.get("restart", "never") != "never" or call["replicas"] > 1
        session.signals(agent, stop=several)
        if several:
            for descriptor in descriptors:
                posix.close(descriptor)
        outcome = _follow(agent, answer) if several else session.carry(descriptors, answer)
        if outcome == DETACHED:
            return 0
        if outcome == CLOSED:  # as a process of this host would die of SIGPIPE
            _node.call("agent.stop", agent=agent, timeout=1)
        last = answer.result()["exit"]
    said = death(last)
    if said:
        sys.stdout.flush()
        print(f"aos run: {said}", file=sys.stderr)
    code: int = last["shell_code"]
    return code


def _follow(agent: str, answer: _node.Answer) -> str:
    """What all of its processes write, from the log: streams end with their process."""
    from aos.cli.logs import follow, open_logs

    with _node.connect() as node:
        logs = open_logs(node, agent)
    try:
        follow(logs, answer)
    except BrokenPipeError:
        return CLOSED
    return ENDED


def _call(args: Arguments) -> dict[str, Any]:
    """The parameters of `agent.run` (docs/kernel.md)."""
    attached = not args["detach"]
    restarts = args["restart"] not in (None, "never")
    if args["tty"] and args["interactive"] and attached and not posix.isatty(0):
        raise FailedPrecondition(
            "-t with -i needs a terminal, and standard input is none",
            code="no-terminal",
            hint="leave -t away when input comes from a pipe or a file",
        )
    if restarts:
        _values.restart_policy(args["restart"], "--restart")
    if args["rm"] and restarts:
        raise InvalidArgument(f"--rm and --restart {args['restart']} exclude each other", code="usage")
    if restarts and attached and (args["interactive"] or args["tty"]):
        raise InvalidArgument(
            f"-i and -t are one process's, --restart {args['restart']} makes several",
            code="usage",
            hint="start it with -d; `aos attach` connects to whichever process runs",
        )
    replicas = _values.count(args["replicas"], "--replicas")
    once = args["rm"] or (attached and (args["interactive"] or args["tty"]))
    call: dict[str, Any] = {
        **sandbox(args),
        "attach": attached and not restarts and not args["dry-run"] and replicas == 1,
        "replicas": replicas,
        "remove": args["rm"],
        "dry_run": args["dry-run"],
    }
    for option in ("name", "restart"):
        if args[option] is not None:
            call[option] = args[option]
    if args["restart-limit"] is not None:
        call["restart_limit"] = _values.restart_limit(args["restart-limit"], "--restart-limit")
    if once and args["restart"] is None:
        call["restart"] = "never"  # whatever the package says: one process is what was asked for
    size = dimensions() if args["tty"] else None
    if size is not None:
        call["rows"], call["columns"] = size
    return call


def sandbox(args: Arguments) -> dict[str, Any]:
    """What of these says what the sandbox is like."""
    call: dict[str, Any] = {
        "reference": args["reference"],
        "terminal": args["tty"],
        "stdin": args["interactive"],
    }
    if args["args"]:
        call["args"] = args["args"]
    if args["entrypoint"] is not None:
        call["entrypoint"] = [args["entrypoint"]] if args["entrypoint"] else []
    if args["env"]:
        call["env"] = _values.environment(args["env"], posix.environ)
    if args["volume"]:
        call["mounts"] = [_values.mount(text) for text in args["volume"]]
    limits: dict[str, float] = {}
    if args["memory"] is not None:
        limits["memory"] = _values.parse_size(args["memory"], "--memory")
    if args["cpus"] is not None:
        limits["cpus"] = _values.cpus(args["cpus"], "--cpus")
    if args["pids"] is not None:
        limits["pids"] = _values.count(args["pids"], "--pids")
    if limits:
        call["limits"] = limits
    if any(args[option] for option in _CONFINING):
        from aos.cli import _confinement

        call |= _confinement.parameters(args)
    for option in ("hostname", "network", "runtime"):
        if args[option] is not None:
            call[option] = args[option]
    if args["egress"]:
        call["egress"] = args["egress"]
    if args["publish"]:
        call["publish"] = args["publish"]
    if args["publish-all"]:
        call["publish_all"] = True
    return call
