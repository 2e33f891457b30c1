"""`make demo`: the main job, shown: build two agents, run them, ask one, kill the daemon under it, ask again.

Uses an installation of its own below .cache/demo (kept, so that the second run is quick) and leaves nothing running.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).resolve().parent
HOME = EXAMPLES.parent / ".cache/demo"
AOS = Path(sys.executable).parent / "aos"

sys.path.insert(0, str(EXAMPLES / "mcp-git"))
from client import Server, command  # noqa: E402

COLOUR = sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def main() -> None:
    if os.getuid() != 0:
        sys.exit("make demo starts sandboxes, and that needs root for now: sudo make demo")
    begin = time.monotonic()
    os.chdir(EXAMPLES.parent)
    repository = make_repository(HOME / "repository")
    root = HOME / "root"
    state = Path("/run/aos-demo-" + hashlib.sha256(os.fsencode(root)).hexdigest()[:8])
    os.environ.update(AOS_ROOT=str(root), AOS_STATE=str(state))
    try:
        show_the_main_job(repository)
    finally:
        for agent in json.loads(aos("ps", "-a", "-o", "json") or "[]"):
            aos("rm", "--force", agent["agent"])
        aos("node", "stop")
        shutil.rmtree(state, ignore_errors=True)
    say(f"Done in {time.monotonic() - begin:.0f} s; nothing is left running. Next: README.md")


def show_the_main_job(repository: Path) -> None:
    say("Build packages from Agentfiles (content-addressed: what is unchanged is not built again)")
    show_build("-t", "hello:1", "examples/hello")
    show_build("-t", "mcp-git:1", "examples/mcp-git")
    show("packages", "ls")

    say("Run one: isolated, without a network, gone afterwards")
    show("run", "--rm", "hello:1")

    say("Run the unmodified MCP server from PyPI; it sees one git repository, read-only, and no network")
    argv = command(repository, "--name", "git", aos=str(AOS))
    print_command(argv)
    with Server(argv) as server:
        about = server.initialize()["serverInfo"]
        print_output(f"initialize → {about['name']} {about['version']}")
        print_output(f"tools/list → {', '.join(tool['name'] for tool in server.tools())}")
        print_output("tools/call git_log →\n" + indented(server.call("git_log", max_count=2)))

        say("Look at it")
        show("ps")
        show("logs", "--tail", "1", "git", limit=1)
        inspect("git")

        say("Kill the daemon under it")
        daemon = status()["pid"]
        print_command(["kill", "-9", str(daemon)])
        os.kill(daemon, signal.SIGKILL)
        before = agent_record("git", daemon)
        show("ps")
        after = status()
        print_output(
            f"a new daemon (pid {after['pid']}, was {daemon}) has adopted the same process {before['pid']}"
        )

        say("The session with the agent never noticed: the same streams, the next question")
        print_output("tools/call git_status →\n" + indented(server.call("git_status")))


def agent_record(name: str, old_daemon: int) -> dict[str, Any]:
    """The record after the restart (asking starts the daemon); it must be running, under another daemon."""
    [record] = json.loads(aos("inspect", name))
    assert record["status"] == "running", record["status"]
    assert status()["pid"] != old_daemon
    return dict(record)


def status() -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(aos("node", "status", "-o", "json"))
    return answer


def inspect(name: str) -> None:
    print_command(["aos", "inspect", name])
    [record] = json.loads(aos("inspect", name))
    text = json.dumps(record, indent=2).splitlines()
    print_output("\n".join([*text[:12], f"… {len(text) - 12} more lines"]))


def indented(text: str) -> str:
    return textwrap.indent("\n".join(line for line in text.splitlines() if line.strip()), "    ")


def make_repository(directory: Path) -> Path:
    """A small git repository with a history."""
    if not (directory / ".git").exists():
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        git = ["git", "-C", str(directory), "-c", "user.name=demo", "-c", "user.email=demo@localhost"]
        subprocess.run([*git, "init", "--quiet", "--initial-branch=main"], check=True)
        for name, text in (("README.md", "# Notes\n"), ("todo.md", "- ask an agent\n")):
            (directory / name).write_text(text)
            subprocess.run([*git, "add", name], check=True)
            subprocess.run([*git, "commit", "--quiet", "--message", f"Add {name}"], check=True)
    return directory


def aos(*words: str) -> str:
    """Run `aos WORDS` and return what it prints; it must succeed."""
    done = subprocess.run([AOS, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"the demo stops: aos {shlex.join(words)} ended with {done.returncode}")
    return done.stdout


def show(*words: str, limit: int = 20) -> None:
    """Show a command and its output."""
    print_command(["aos", *words])
    print_output("\n".join(aos(*words).splitlines()[:limit]))


def show_build(*words: str) -> None:
    """Show a build as it goes; where there is no terminal to show it live, without what its steps say."""
    print_command(["aos", "build", *words])
    with subprocess.Popen(
        [AOS, "build", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # the digest, which the progress names, too
        stderr=None if sys.stderr.isatty() else subprocess.PIPE,
        text=True,
    ) as build:
        for line in build.stderr or ():
            if not re.match(r"#\d+ \| ", line):
                print(line, end="", flush=True)
    if build.returncode:
        sys.exit(f"the demo stops: aos build {shlex.join(words)} ended with {build.returncode}")


def say(text: str) -> None:
    print("\n" + (f"\033[1m{text}\033[0m" if COLOUR else f"# {text}"), flush=True)


def print_command(argv: list[str]) -> None:
    line = shlex.join(["aos" if word == str(AOS) else word for word in argv])
    print(f"\033[36m$ {line}\033[0m" if COLOUR else f"$ {line}", flush=True)


def print_output(text: str) -> None:
    width = shutil.get_terminal_size().columns if COLOUR else 200
    for line in text.splitlines():
        print(line if len(line) <= width else line[: width - 1] + "…", flush=True)


if __name__ == "__main__":
    main()
