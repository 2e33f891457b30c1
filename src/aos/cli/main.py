"""The command `aos`: finds the verb, runs it, and turns every error into words and an exit code.

    0       done                            1       a defect of aos, or what a verb documents
    2…13    the kind of error (aos.errors)  125     run, exec, attach: aos failed, not the agent
    126/127 run, exec: the entrypoint cannot be run / was not found
    130     Ctrl-C                          141     whoever read our output went away
    run, exec, attach: else the exit code of the agent's process

Builtins and C modules only: a start costs what the interpreter costs.
"""

from __future__ import annotations

import atexit
import gc
import posix
import sys

from aos.errors import (
    AosError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

    from aos.cli._options import Arguments, Verb

    Command = tuple[str, Verb, Callable[[Arguments], int]]

__all__ = ["GROUPS", "LIGHT", "SUMMARIES", "entry", "find", "load", "main", "report"]

GROUPS: tuple[tuple[str, dict[str, str]], ...] = (
    (
        "Make packages",
        {
            "init": "Write a starting Agentfile",
            "validate": "Check an Agentfile",
            "schema": "Print the JSON Schema of the Agentfile",
            "build": "Build a package from an Agentfile",
            "explain": "Tell why steps of a build were executed, or were not",
            "cache": "List, measure and remove what builds keep",
            "lock": "Write down what an Agentfile's names stand for",
        },
    ),
    (
        "Share packages",
        {
            "push": "Send a package to a registry",
            "pull": "Fetch a package from a registry",
            "packages": "List, inspect, measure and remove local packages",
            "history": "Show the layers of a package and the steps that made them",
            "diff": "Show what is different between two packages",
            "verify": "Check that a package is whole",
        },
    ),
    (
        "Run agents",
        {
            "run": "Start an agent from a package",
            "ps": "List agents",
            "logs": "Show what an agent has written",
            "exec": "Run another command inside a running agent",
            "attach": "Connect to the streams of a running agent",
            "top": "Show the processes inside of a running agent",
            "cp": "Copy files between this host and a running agent",
            "stop": "Stop agents, with time to finish",
            "pause": "Freeze agents where they are",
            "unpause": "Let agents go on that were paused",
            "update": "Change limits and the restart policy of agents",
            "kill": "Send a signal to agents",
            "rm": "Remove agents",
            "wait": "Wait until agents have finished and print their exit codes",
            "inspect": "Show everything known about agents",
            "stats": "Show what agents use",
            "port": "Show the published ports of an agent",
            "network": "Show how agents are connected, and what they may reach",
            "volume": "List, inspect and remove named volumes",
            "pool": "Have sandboxes made before they are wanted",
            "events": "Show what happened on the node",
        },
    ),
    (
        "Look after the node",
        {
            "node": "Run, start, stop and look at the daemon",
            "doctor": "Check whether this host has what agents need",
            "runtimes": "List what can isolate agents here, and which one auto takes",
            "df": "Show what takes space",
            "prune": "Remove finished agents and everything unused",
            "unshare": "Run a command as root of the user namespace that agents are in",
        },
    ),
    (
        "Else",
        {
            "completion": "Print a completion script for a shell",
            "version": "Show the versions of aos and of the daemon",
            "help": "Show help about a verb",
        },
    ),
)
SUMMARIES = {name: summary for _, verbs in GROUPS for name, summary in verbs.items()}

LIGHT = frozenset(
    [
        "run",
        "ps",
        "logs",
        "exec",
        "attach",
        "stop",
        "pause",
        "unpause",
        "update",
        "top",
        "volume",
        "pool",
        "network",
        "port",
        "kill",
        "rm",
        "wait",
        "inspect",
        "stats",
        "events",
        "df",
        "runtimes",
        "prune",
        "version",
        "completion",
        "help",
        "unshare",
    ]
)
"""Verbs that need no third-party package: site-packages stays off their path, which saves 3 ms and more."""

NAMESPACED = frozenset(("build", "cache", "cp", "lock", "packages", "unshare"))
"""Verbs that touch files of more than one user without the daemon: an ordinary user's go into the user's namespace."""

AGENT_STATUS = frozenset(("run", "exec", "attach"))
"""Verbs whose exit code is the agent's, so that aos itself fails with 125."""


def entry() -> NoReturn:
    """Run as the command `aos`; never returns."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            posix.fstat(descriptor)
        except OSError:  # closed by whoever started us: else a socket of ours would take its number
            posix.open("/dev/null", posix.O_RDWR)
            setattr(sys, name, open(descriptor, "w" if descriptor else "r"))  # noqa: PTH123, SIM115
    sys.stdout.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
    gc.set_threshold(50_000)  # imports make 30,000 objects that stay; by default it looks every 700
    code = main(sys.argv[1:])
    threading = sys.modules.get("threading")
    if threading is not None:
        if threading.active_count() > 1:
            sys.exit(code)  # waits for them
        atexit._run_exitfuncs()
    posix._exit(code)  # an interpreter that leaves takes itself apart: 15 ms after a build


def main(argv: Sequence[str]) -> int:
    """Run a command line without the command's own name; return the exit code."""
    words = list(argv)
    debug = bool(posix.environ.get(b"AOS_DEBUG"))
    name, json = "", False
    try:
        while words and words[0].startswith("-"):
            option = words.pop(0)
            if option == "--debug":
                debug = True
            elif option in ("-h", "--help"):
                words = ["help", *words]
            elif option in ("-v", "--version"):
                words = ["version", "--client"]
            else:
                raise InvalidArgument(
                    f"unknown option {option}", code="usage", hint="aos --help shows all verbs"
                )
        name, verb, function, rest = find(words or ["help"])
        from aos.cli._options import parse

        json = "output" in [option.long for option in verb.options] and _says_json(rest)
        args = parse(verb, rest)
        debug = debug or args["debug"]
        json = args.get("output") == "json" or args.get("progress") in ("json", "rawjson")
        if args["help"]:
            from aos.cli._help import show_verb

            code = show_verb(name, verb)
        else:
            if posix.getuid() != 0 and name.partition(" ")[0] in NAMESPACED:
                _enter_namespace()
            code = function(args)
        sys.stdout.flush()
        return code
    except AosError as error:
        return report(name, error, debug, json)
    except BrokenPipeError:
        _drop_output()
        return 141
    except OSError as error:
        return report(name, _of_os(error), debug, json)
    except KeyboardInterrupt:
        return 130
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else 0 if leave.code is None else 1
    except Exception as error:
        defect = AosError(
            f"this is a defect of aos: {type(error).__name__}: {error}",
            hint="run it again with AOS_DEBUG=1 and report what it shows",
        )
        defect.__cause__ = error
        return report(name, defect, debug, json)


def find(words: Sequence[str]) -> tuple[str, Verb, Callable[[Arguments], int], list[str]]:
    """Find the verb that a command line begins with: its full name, what it takes, its function, the rest."""
    name, rest = words[0], list(words[1:])
    if name not in SUMMARIES:
        from aos.cli._options import nearest

        guess = nearest(name, SUMMARIES)
        raise InvalidArgument(
            f"unknown verb {name!r}",
            code="usage",
            hint=f"did you mean aos {guess}?" if guess else "aos --help shows all verbs",
        )
    module = load(name)
    group: dict[str, tuple[Verb, Callable[[Arguments], int]]] | None = getattr(module, "VERBS", None)
    if group is None:
        return name, module.VERB, module.main, rest
    if rest and rest[0] in group:
        return f"{name} {rest[0]}", *group[rest[0]], rest[1:]
    if rest and rest[0] in ("-h", "--help"):
        return name, *_group_help(name, group), []
    if "" in group and (not rest or rest[0].startswith("-")):
        return name, *group[""], rest
    from aos.cli._options import nearest

    known = ", ".join(verb for verb in group if verb)
    guess = nearest(rest[0], group) if rest else ""
    raise InvalidArgument(
        f"unknown verb '{name} {rest[0]}'" if rest else f"{name} needs one of: {known}",
        code="usage",
        hint=f"did you mean aos {name} {guess}?" if guess else f"aos {name} has: {known}" if rest else None,
    )


def load(name: str) -> Any:
    """Import the module of a verb. What needs third-party packages gets the path to them first."""
    if name not in LIGHT and sys.flags.no_site and "site" not in sys.modules:
        import site

        site.main()
    module = "aos.cli." + name
    __import__(module)
    return sys.modules[module]


def _enter_namespace() -> None:
    import os

    from aos.compose.node import enter_user_namespace
    from aos.config import load_config

    enter_user_namespace(load_config(os.environ))


def _group_help(name: str, group: dict[str, Any]) -> tuple[Verb, Callable[[Arguments], int]]:
    from aos.cli._help import show_group
    from aos.cli._options import Verb

    return Verb(SUMMARIES[name]), lambda _: show_group(name, group)


def _says_json(words: Sequence[str]) -> bool:
    """Tell from a command line that may be wrong whether errors are wanted as JSON."""
    line = "\0".join(words).partition("\0--\0")[0]
    return any(form in line for form in ("-o\0json", "-ojson", "--output=json", "--output\0json"))


def _of_os(error: OSError) -> AosError:
    """Say what the system refused, as one of our own errors."""
    import errno

    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    message = ": ".join([*names, error.strerror or str(error)])
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceExhausted(message, code="disk-full", hint="make room; aos df and aos prune help")
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN):
        return ResourceExhausted(
            message, code="system-limit", hint="the system has no more of it; try again later"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return PermissionDenied(message, hint="run it as the user that owns it, or with sudo")
    if error.errno == errno.ENOENT:
        return NotFound(message, code="file-not-found", hint="check the path")
    if error.errno in (errno.ECONNREFUSED, errno.ECONNRESET, errno.ETIMEDOUT):
        return Unavailable(message, hint="try again; aos doctor shows what is wrong with this host")
    return FailedPrecondition(message, code="system", hint="aos doctor shows what is wrong with this host")


def _drop_output() -> None:
    """Send what is still buffered nowhere: its reader is gone, or its disk is full."""
    posix.dup2(posix.open("/dev/null", posix.O_WRONLY), 1)


def _harmless(text: str) -> str:
    """What a terminal only prints: errors quote names and words of packages, plugins, registries and agents."""
    return "".join(
        char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in text
    )


def report(name: str, error: AosError, debug: bool = False, json: bool = False) -> int:
    """Print an error and return its exit code."""
    from aos.cli._output import colour

    verb = name.partition(" ")[0]
    code = error.exit_code
    if verb in AGENT_STATUS:
        status = error.subject.get("exit_status")
        code = status if isinstance(status, int) else 125
    hint = error.hint
    if error.code == "usage" and not hint:
        hint = f"aos {name or '…'} --help shows how"
    if debug:
        import traceback

        traceback.print_exception(error)
    try:
        try:
            sys.stdout.flush()
        except OSError:
            _drop_output()
        if json:
            import json as codec

            wire: dict[str, object] = {"kind": error.kind, "code": error.code, "message": error.message}
            wire |= {"hint": hint} if hint else {}
            wire |= {"subject": error.subject} if error.subject else {}
            print(codec.dumps({"error": wire, "exit_code": code}, default=str), file=sys.stderr)
        else:
            print(colour(f"aos {name}".rstrip() + ":", "red", 2), _harmless(error.message), file=sys.stderr)
            if hint:
                print(colour("hint:", "cyan", 2), _harmless(hint), file=sys.stderr)
        sys.stderr.flush()
    except OSError:
        pass  # nobody reads; the exit code remains
    return code
