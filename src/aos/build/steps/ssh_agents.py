"""SSH agents that `run` steps may ask for signatures: what `aos build --ssh` gives.

A step talks to a socket of ours, which belongs to its user, and we to the agent: so the agent's own socket need not
be open to that user, and a step can use keys but not add, remove or lock any.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import re
import shutil
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aos.errors import FailedPrecondition, InvalidArgument, NotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

__all__ = ["SshAgent", "forward_agent", "parse_ssh"]

_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")

# draft-miller-ssh-agent (version 14), section 5.1 "Message numbers".
_FAILURE = b"\0\0\0\1\5"
_REQUEST_IDENTITIES, _SIGN_REQUEST, _EXTENSION = 11, 13, 27
_SESSION_BIND = b"session-bind@openssh.com"
"""OpenSSH's PROTOCOL.agent: tells the agent to which host a connection goes, for keys that are bound to some."""
_LARGEST = 256 * 1024
"""Bytes; OpenSSH's agent takes no more (ssh-agent.c, AGENT_MAX_LEN)."""
_AGENT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class SshAgent:
    id: str
    socket: Path | None = None
    keys: tuple[Path, ...] = ()
    """Files that an agent for this build alone is given."""


def parse_ssh(text: str, environ: Mapping[str, str]) -> SshAgent:
    """`ID`, `ID=SOCKET` or `ID=KEYFILE[,KEYFILE]`; without a path it is SSH_AUTH_SOCK.

    Raise InvalidArgument (`ssh-invalid`), NotFound (`ssh-agent-not-found`).
    """
    id, equals, rest = text.partition("=")
    if not _ID.fullmatch(id) or (equals and not rest):
        raise InvalidArgument(
            f"--ssh {text!r:.80} is not understood",
            code="ssh-invalid",
            hint="--ssh default, --ssh ID=SOCKET, or --ssh ID=KEYFILE[,KEYFILE]",
        )
    paths = [Path(path) for path in (rest or environ.get("SSH_AUTH_SOCK", "")).split(",") if path]
    if not paths:
        raise NotFound(
            f"--ssh {id}: no SSH agent is there (SSH_AUTH_SOCK is not set)",
            code="ssh-agent-not-found",
            hint="start one (`eval $(ssh-agent)`, `ssh-add`), or name a socket or a key: --ssh default=PATH",
        )
    modes = []
    for path in paths:
        try:
            modes.append(path.stat().st_mode)
        except OSError as error:
            raise NotFound(
                f"--ssh {id}: {str(path)!r}: {error.strerror}",
                code="ssh-agent-not-found",
                hint="name the socket of an agent, or a file with a private key",
            ) from error
    if len(paths) == 1 and stat.S_ISSOCK(modes[0]):
        return SshAgent(id, socket=paths[0].absolute())
    if not all(stat.S_ISREG(mode) for mode in modes):
        raise InvalidArgument(
            f"--ssh {id}: one socket, or files with private keys",
            code="ssh-invalid",
            hint="--ssh ID=SOCKET, or --ssh ID=KEYFILE[,KEYFILE]",
        )
    return SshAgent(id, keys=tuple(path.absolute() for path in paths))


@contextlib.asynccontextmanager
async def forward_agent(agent: SshAgent, directory: Path, owner: tuple[int, int]) -> AsyncIterator[Path]:
    """Listen in `directory` (empty, ours) on a socket of `owner`'s that leads to the agent.

    Raise FailedPrecondition (`ssh-key-unusable`, `openssh-missing`), NotFound (`ssh-agent-not-found`).
    """
    async with contextlib.AsyncExitStack() as stack:
        upstream = agent.socket
        if upstream is None:
            upstream = await stack.enter_async_context(_own_agent(agent, directory))
        relay = functools.partial(_relay, agent=upstream)
        connections: set[asyncio.Task[None]] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            connections.add(task)
            try:
                await relay(reader, writer)
            except (OSError, asyncio.IncompleteReadError):
                pass  # either side went away: so does the other
            finally:
                connections.discard(task)
                writer.close()

        with _short(directory) as short:
            server = await asyncio.start_unix_server(serve, f"{short}/forwarded")
        path = directory / "forwarded"
        os.chown(path, *owner)
        path.chmod(0o600)
        try:
            yield path
        finally:
            server.close()
            for task in [*connections]:
                task.cancel()
            await asyncio.gather(*connections, return_exceptions=True)


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, agent: Path) -> None:
    """Requests one by one: those that use a key go to the agent, others fail."""
    with _short(agent.parent) as short:
        from_agent, to_agent = await asyncio.open_unix_connection(f"{short}/{agent.name}")
    try:
        while True:
            request = await _message(reader)
            if _allowed(request):
                to_agent.write(struct.pack(">I", len(request)) + request)
                answer = await _message(from_agent)
                writer.write(struct.pack(">I", len(answer)) + answer)
            else:
                writer.write(_FAILURE)
            await writer.drain()
    finally:
        to_agent.close()


async def _message(reader: asyncio.StreamReader) -> bytes:
    (length,) = struct.unpack(">I", await reader.readexactly(4))
    if not 0 < length <= _LARGEST:
        raise OSError("not a message of the agent protocol")
    return await reader.readexactly(length)


def _allowed(request: bytes) -> bool:
    if request[0] == _EXTENSION:
        return request[1:].startswith(struct.pack(">I", len(_SESSION_BIND)) + _SESSION_BIND)
    return request[0] in (_REQUEST_IDENTITIES, _SIGN_REQUEST)


@contextlib.asynccontextmanager
async def _own_agent(agent: SshAgent, directory: Path) -> AsyncIterator[Path]:
    """An ssh-agent that holds the keys, and ends with the build, also by kill -9 (setpriv: util-linux).

    Without new privileges: ssh-agent is a set-group-id program, and such a one is not told that its parent died."""
    for tool in ("ssh-agent", "ssh-add", "setpriv"):
        if shutil.which(tool) is None:
            raise FailedPrecondition(
                f"{tool} is not installed, and `--ssh {agent.id}=KEYFILE` needs it",
                code="openssh-missing",
                hint="sudo apt-get install openssh-client, or name the socket of an agent",
            )
    with _short(directory) as short:
        descriptor = int(short.rpartition("/")[2])
        process = await asyncio.create_subprocess_exec(
            *("setpriv", "--no-new-privs", "--pdeathsig", "KILL"),
            *("--", "ssh-agent", "-D", "-a", f"{short}/agent"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            pass_fds=(descriptor,),
        )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(_AGENT_SECONDS):
            await process.stdout.readline()  # it says where it listens once it does
        with _short(directory) as short:
            adding = await asyncio.create_subprocess_exec(
                *("ssh-add", "-q", "--", *map(str, agent.keys)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env={"SSH_AUTH_SOCK": f"{short}/agent", "PATH": os.defpath, "SSH_ASKPASS_REQUIRE": "never"},
                pass_fds=(int(short.rpartition("/")[2]),),
                start_new_session=True,  # no terminal: a passphrase is not asked for
            )
            async with asyncio.timeout(_AGENT_SECONDS):
                _, said = await adding.communicate()
        if adding.returncode != 0:
            raise FailedPrecondition(
                f"--ssh {agent.id}: ssh-add cannot use {', '.join(map(str, agent.keys))}: "
                + said.decode(errors="replace").strip().replace("\n", "; "),
                code="ssh-key-unusable",
                hint="a key with a passphrase goes to an agent of yours first: ssh-add KEYFILE, then --ssh default",
            )
        yield directory / "agent"
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


@contextlib.contextmanager
def _short(directory: Path) -> Iterator[str]:
    """A path of the directory that a socket address can hold (107 bytes), while this lasts."""
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
