"""The calls of the kernel's socket as types: what each takes (docs/kernel.md). Unknown parameters are refused."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from aos.errors import AosError
from aos.kernel.process.restart import RestartLimit  # noqa: TC001 - msgspec reads the types

__all__ = ["CALLS", "PROTOCOL", "Request", "decode_params", "decode_request"]

PROTOCOL = 1


class _Params(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class Hello(_Params, frozen=True):
    protocol: int
    version: str = ""


class Nothing(_Params, frozen=True):
    pass


class Everything(_Params, frozen=True):
    all: bool = False


class OfAgent(_Params, frozen=True):
    agent: str


class BindMount(_Params, frozen=True):
    source: str
    target: str
    read_only: bool = False


class LimitParams(_Params, frozen=True):
    memory: int | None = None
    cpus: float | None = None
    pids: int | None = None


class TmpfsMount(_Params, frozen=True):
    target: str
    size: Annotated[int, msgspec.Meta(ge=1)] | None = None


class UlimitParams(_Params, frozen=True):
    name: str
    soft: Annotated[int, msgspec.Meta(ge=0)]
    hard: Annotated[int, msgspec.Meta(ge=0)]


class ConfinementParams(_Params, frozen=True):
    add_capabilities: tuple[str, ...] = ()
    drop_capabilities: tuple[str, ...] = ()
    seccomp: str = ""
    users: Literal["", "auto", "private", "host"] = ""
    label: str = ""
    ulimits: tuple[UlimitParams, ...] = ()
    devices: tuple[str, ...] = ()


class SecretParams(_Params, frozen=True):
    name: str
    data: bytes
    """In JSON: base64. It is kept in the node's transient state alone."""
    target: str = ""


class RunAgent(_Params, frozen=True):
    reference: str
    name: str = ""
    args: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    env: dict[str, str] = {}
    mounts: tuple[BindMount, ...] = ()
    tmpfs: tuple[TmpfsMount, ...] = ()
    limits: LimitParams = LimitParams()
    confinement: ConfinementParams = ConfinementParams()
    read_only: bool = False
    disk: Annotated[int, msgspec.Meta(ge=1)] | None = None
    secrets: tuple[SecretParams, ...] = ()
    network: str | None = None
    egress: tuple[str, ...] | None = None
    publish: tuple[str, ...] = ()
    publish_all: bool = False
    runtime: str = ""
    restart: str | None = None
    restart_limit: RestartLimit | None = None
    replicas: int = 1
    hostname: str = ""
    user: str = ""
    work_dir: str = ""
    terminal: bool = False
    stdin: bool = False
    attach: bool = False
    remove: bool = False
    dry_run: bool = False
    rows: int | None = None
    columns: int | None = None


class StopAgent(_Params, frozen=True):
    agent: str
    timeout: float | None = None
    """Seconds; None: those of the package."""


class KillAgent(_Params, frozen=True):
    agent: str
    signal: str = "KILL"


class RemoveAgent(_Params, frozen=True):
    agent: str
    force: bool = False


class UpdateAgent(_Params, frozen=True):
    agent: str
    limits: LimitParams = LimitParams()
    restart: str | None = None


class OfReplica(_Params, frozen=True):
    agent: str
    replica: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """From 0; None: the first that runs."""


class LogsOf(_Params, frozen=True):
    agent: str
    replica: Annotated[int, msgspec.Meta(ge=0)] = 0


class StatsOf(_Params, frozen=True):
    agents: tuple[str, ...] | None = None


class ExecInAgent(_Params, frozen=True):
    agent: str
    args: tuple[str, ...]
    replica: Annotated[int, msgspec.Meta(ge=0)] | None = None
    env: dict[str, str] = {}
    user: str = ""
    work_dir: str = ""
    terminal: bool = False
    stdin: bool = False
    rows: int | None = None
    columns: int | None = None


class StartExec(_Params, frozen=True):
    exec: str


class SetPool(_Params, frozen=True):
    run: RunAgent
    """What its sandboxes are for; what it says of the agent does not matter."""
    size: Annotated[int, msgspec.Meta(ge=1)]
    wait: bool = False


class OfPool(_Params, frozen=True):
    pool: str
    """Its name, or a reference: all pools of it."""


class OfVolume(_Params, frozen=True):
    volume: str


class WatchEvents(_Params, frozen=True):
    since: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)] | None = None
    follow: bool = False


CALLS: dict[str, type[_Params]] = {
    "node.hello": Hello,
    "node.status": Nothing,
    "node.stop": Nothing,
    "node.df": Nothing,
    "node.prune": Everything,
    "runtime.info": Nothing,
    "agent.run": RunAgent,
    "agent.list": Everything,
    "agent.inspect": OfAgent,
    "agent.stop": StopAgent,
    "agent.kill": KillAgent,
    "agent.remove": RemoveAgent,
    "agent.wait": OfAgent,
    "agent.pause": OfAgent,
    "agent.unpause": OfAgent,
    "agent.update": UpdateAgent,
    "agent.top": OfAgent,
    "agent.root": OfReplica,
    "agent.attach": OfAgent,
    "agent.logs": LogsOf,
    "agent.stats": StatsOf,
    "agent.exec": ExecInAgent,
    "exec.start": StartExec,
    "network.list": Nothing,
    "events.watch": WatchEvents,
    "pool.set": SetPool,
    "pool.list": Nothing,
    "pool.remove": OfPool,
    "volume.list": Nothing,
    "volume.inspect": OfVolume,
    "volume.remove": OfVolume,
}


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A JSON-RPC 2.0 request."""

    jsonrpc: str
    method: str
    id: int | str | None = None
    params: msgspec.Raw = msgspec.Raw(b"{}")


class BadRequest(AosError):
    """A message that JSON-RPC itself refuses; `rpc_code` is the specification's, `request_id` the message's
    own where it could be read."""

    kind, exit_code, default_code = "InvalidArgument", 2, "request-invalid"

    def __init__(self, message: str, rpc_code: int, *, code: str, hint: str | None = None) -> None:
        super().__init__(message, code=code, hint=hint)
        self.rpc_code = rpc_code
        self.request_id: int | str | None = None


_request = msgspec.json.Decoder(Request).decode


def decode_request(line: bytes) -> Request:
    """BadRequest: -32700 `request-not-json`, -32600 `request-invalid`, -32601 `method-unknown`."""
    try:
        request = _request(line)
    except msgspec.ValidationError as error:
        raise BadRequest(f"not a JSON-RPC 2.0 request: {error}", -32600, code="request-invalid") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"not JSON: {error}", -32700, code="request-not-json") from error
    if request.jsonrpc != "2.0":
        raise BadRequest(
            f"'jsonrpc' must be \"2.0\", not {request.jsonrpc!r:.20}", -32600, code="request-invalid"
        )
    if request.method not in CALLS:
        unknown = BadRequest(
            f"no method {request.method!r:.60}",
            -32601,
            code="method-unknown",
            hint="docs/kernel.md lists them; a newer client needs a newer node (`aos node restart`)",
        )
        unknown.request_id = request.id
        raise unknown
    return request


def decode_params(request: Request) -> _Params:
    """BadRequest -32602 `params-invalid` says which parameter is wrong, and why."""
    try:
        return msgspec.json.decode(request.params, type=CALLS[request.method])
    except UnicodeDecodeError as error:
        raise BadRequest(
            f"{request.method}: a parameter is not UTF-8",
            -32602,
            code="params-invalid",
            hint="use UTF-8 text",
        ) from error
    except (msgspec.ValidationError, msgspec.DecodeError, RecursionError) as error:
        raise BadRequest(f"{request.method}: {error}", -32602, code="params-invalid") from error
