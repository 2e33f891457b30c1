"""Programs from packages: a reference becomes what an agent runs, and that becomes its sandbox's specification."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import msgspec

from aos.errors import InvalidArgument, PermissionDenied
from aos.kernel.process.health import Hook, Probe
from aos.kernel.process.records import Program
from aos.kernel.process.restart import RestartLimit, parse_restart
from aos.oci.digest import Digest
from aos.package import load_package
from aos.runtime.network.asked import NetworkWords
from aos.runtime.spec import Limits, Mount
from aos.runtime.to_agent_spec import Overrides, to_agent_spec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aos.content.store import ContentStore
    from aos.kernel.syscalls import RunAgent
    from aos.node.volumes import Volumes
    from aos.package import Package
    from aos.registry.protocol import PackageRegistry
    from aos.runtime.spec import AgentSpec

__all__ = ["PackagePrograms"]

_TRANSIENT = (
    *("reference", "name", "attach", "remove", "dry_run", "rows", "columns"),
    *("restart", "restart_limit", "replicas"),
)
"""What a call says of the agent, not of its sandboxes."""
_KEPT = 64
"""Packages whose facts stay in memory."""


class PackagePrograms:
    def __init__(
        self, content: ContentStore, registry: PackageRegistry, volumes: Volumes, *, host_network: bool = True
    ) -> None:
        """`host_network`: whether agents may have the host's own."""
        self._host_network = host_network
        self._content = content
        self._registry = registry
        self._volumes = volumes
        self._packages: OrderedDict[Digest, Package] = OrderedDict()

    async def program(self, call: RunAgent) -> tuple[Program, str, RestartLimit | None]:
        """What `agent.run` asked for, with its reference resolved once; its restart policy, and the policy's limit."""
        digest = await asyncio.to_thread(self._registry.resolve, call.reference)
        package = await self._package(digest)
        overrides = msgspec.to_builtins(call)
        for transient in _TRANSIENT:
            overrides.pop(transient)
        # Who leaves a terminal may come back to it; the end of a pipe is the end of the input.
        overrides["leave_stdin_open"] = call.stdin and call.terminal
        spec = to_agent_spec(package, self._overrides(overrides, ""))
        self._check_network(spec)
        definition = package.definition or {}
        restart = call.restart or definition.get("restart") or "never"
        parse_restart(restart)
        limit = call.restart_limit
        if limit is None and call.restart is None and "restart_limit" in definition:
            limit = msgspec.convert(definition["restart_limit"], RestartLimit)
        return (
            Program(
                reference=call.reference,
                digest=digest,
                package_name=package.name,
                package_version=package.version,
                command=spec.process.args,
                runtime=spec.runtime,
                overrides=overrides,
                stop_signal=package.image.stop_signal.removeprefix("SIG") or "TERM",
                terminal=call.terminal,
                **_lifecycle(definition),
            ),
            restart,
            limit,
        )

    async def spec(self, program: Program, hostname: str) -> AgentSpec:
        package = await self._package(Digest(program.digest))
        spec = to_agent_spec(package, self._overrides(program.overrides, hostname))
        self._check_network(spec)
        return spec

    def _check_network(self, spec: AgentSpec) -> None:
        if spec.network.mode == "host" and not self._host_network:
            raise PermissionDenied(
                "agents may not have the host's network here",
                code="network-forbidden",
                hint="`--network bridge` gives it one with a policy; [network] host of the configuration forbids this",
            )

    async def _package(self, digest: Digest) -> Package:
        found = self._packages.get(digest)
        if found is None:
            found = await asyncio.to_thread(load_package, self._content.blobs, digest)
            self._packages[digest] = found
            if len(self._packages) > _KEPT:
                self._packages.popitem(last=False)
        self._packages.move_to_end(digest)
        return found

    def _overrides(self, raw: dict[str, Any], hostname: str) -> Overrides:
        """From the call's words, as the journal keeps them."""
        limits = raw.get("limits") or {}
        args, entrypoint, egress = raw.get("args"), raw.get("entrypoint"), raw.get("egress")
        return Overrides(
            args=None if args is None else tuple(args),
            entrypoint=None if entrypoint is None else tuple(entrypoint),
            env=tuple((raw.get("env") or {}).items()),
            mounts=tuple(
                Mount(
                    "bind",
                    one["target"],
                    self._volumes.source(one["source"]),
                    one.get("read_only", False),
                )
                for one in raw.get("mounts") or ()
            ),
            limits=Limits(limits.get("memory"), limits.get("cpus"), limits.get("pids")),
            network=NetworkWords(
                mode=raw.get("network"),
                egress=None if egress is None else tuple(egress),
                publish=tuple(raw.get("publish") or ()),
                publish_all=bool(raw.get("publish_all")),
            ),
            runtime=raw.get("runtime") or "",
            hostname=raw.get("hostname") or hostname,
            user=raw.get("user") or "",
            work_dir=raw.get("work_dir") or "",
            terminal=bool(raw.get("terminal")),
            stdin=bool(raw.get("stdin")),
            leave_stdin_open=bool(raw.get("leave_stdin_open")),
        )


def _lifecycle(definition: Mapping[str, Any]) -> dict[str, Any]:
    """What a definition says of a program's life; InvalidArgument `package-invalid` for what is damaged."""
    try:
        found: dict[str, Any] = {
            name: msgspec.convert(definition[name], Probe, strict=False)
            for name in ("health", "readiness")
            if name in definition
        }
        if "hooks" in definition:
            found["hooks"] = msgspec.convert(definition["hooks"], dict[str, tuple[Hook, ...]])
        if "stop_grace" in definition:
            found["grace"] = float(definition["stop_grace"])
    except (msgspec.ValidationError, ValueError, TypeError) as error:
        raise InvalidArgument(
            f"the package's definition is damaged: {error}", code="package-invalid", hint="build it again"
        ) from error
    return found
