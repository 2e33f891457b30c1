"""Ask an MCP server that runs as an agent about a git repository.

    python examples/mcp-git/client.py DIRECTORY [TOOL [NAME=VALUE...]]

Speaks the Model Context Protocol over standard input and output with `aos run -i`: one JSON-RPC 2.0 message a line,
`initialize` first. Standard library only; `Server` may be used from elsewhere (examples/demo.py does).
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

PACKAGE = "mcp-git:1"
REPOSITORY = "/repository"
"""Where the agent sees the directory (read-only)."""


def command(directory: Path, *options: str, aos: str = "aos") -> list[str]:
    """The command line that runs the agent with a directory of this host mounted read-only."""
    mount = f"{directory.resolve()}:{REPOSITORY}:ro"
    return [aos, "run", "-i", "--rm", "-v", mount, *options, PACKAGE, "--repository", REPOSITORY]


class Server:
    """An MCP server at the other end of a command's streams; a context manager that ends it by closing them."""

    def __init__(self, argv: Sequence[str], environ: dict[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ, text=True, bufsize=1
        )
        self._last = 0

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def initialize(self) -> dict[str, Any]:
        """Open the session; returns what the server says about itself."""
        answer = self.request(
            "initialize",
            protocolVersion="2024-11-05",
            capabilities={},
            clientInfo={"name": "aos-example", "version": "1"},
        )
        self._send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return answer

    def tools(self) -> list[dict[str, Any]]:
        tools: list[dict[str, Any]] = self.request("tools/list")["tools"]
        return tools

    def call(self, tool: str, **arguments: Any) -> str:
        """Call a tool; returns its text."""
        answer = self.request("tools/call", name=tool, arguments={"repo_path": REPOSITORY, **arguments})
        text = "\n".join(part["text"] for part in answer["content"] if part["type"] == "text")
        if answer.get("isError"):
            raise RuntimeError(f"{tool}: {text}")
        return text

    def request(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a request and return its result; what the server sends meanwhile (notifications) is passed over."""
        self._last += 1
        self._send({"jsonrpc": "2.0", "id": self._last, "method": method, "params": params})
        assert self._process.stdout
        for line in self._process.stdout:
            message = json.loads(line)
            if message.get("id") == self._last:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                result: dict[str, Any] = message["result"]
                return result
        raise RuntimeError(f"the server ended (exit code {self._process.wait()}) before it answered {method}")

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(message) + "\n")


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    tool, *pairs = sys.argv[2:] or ["git_log", "max_count=3"]
    arguments = {
        name: int(value) if value.isdigit() else value for name, value in (p.split("=", 1) for p in pairs)
    }
    with Server(command(Path(sys.argv[1]))) as server:
        about = server.initialize()["serverInfo"]
        print(f"{about['name']} {about['version']}: {', '.join(one['name'] for one in server.tools())}")
        print(server.call(tool, **arguments))


if __name__ == "__main__":
    main()
