"""Programs from packages: a reference becomes what an agent runs, and that becomes its sandbox's specification."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import msgspec

from aos.errors import InvalidArgument
from aos.kernel.process.health import Hook, Probe
from aos.kernel.process.records import Program
from aos.kernel.process.restart import RestartLimit, parse_restart
from aos.oci.digest import Digest
from aos.package import load_package
from aos.runtime.capabilities import capability_name
from aos.runtime.network.asked import NetworkWords
from aos.runtime.spec import Confinement, Limits, Mount, Ulimit
from aos.runtime.to_agent_spec import Overrides, to_agent_spec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aos.content.store import ContentStore
    from aos.kernel.syscalls import RunAgent
    from aos.node.secrets import AgentSecrets
    from aos.node.volumes import Volumes
    from aos.package import Package
    from aos.registry.protocol import PackageRegistry
    from aos.runtime.policy import Policy
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
        self,
        content: ContentStore,
        registry: PackageRegistry,
        volumes: Volumes,
        secrets: AgentSecrets,
        policy: Policy,
    ) -> None:
        self._secrets = secrets
        self._policy = policy
        self._content = content
        self._registry = registry
        self._volumes = volumes
        self._packages: OrderedDict[Digest, Package] = OrderedDict()

    async def program(self, call: RunAgent) -> tuple[Program, str, RestartLimit | None]:
        """What `agent.run` asked for, with its reference resolved once; its restart policy, and the policy's limit."""
        digest = await asyncio.to_thread(self._registry.resolve, call.reference)
        package = await self._package(digest)
        definition = package.definition or {}
        overrides = msgspec.to_builtins(call)
        for transient in _TRANSIENT:
            overrides.pop(transient)
        # Who leaves a terminal may come back to it; the end of a pipe is the end of the input.
        overrides["leave_stdin_open"] = call.stdin and call.terminal
        overrides["secrets"] = _wanted(definition, call)
        overrides["secrets_key"] = ""
        spec = self._policy.check(
            to_agent_spec(package, self._overrides(overrides, "")), self._volumes.directory
        )
        if call.secrets and not call.dry_run:
            overrides["secrets_key"] = self._secrets.put({one.name: one.data for one in call.secrets})
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
        return self._policy.check(spec, self._volumes.directory)

    def secret_values(self, program: Program) -> list[bytes]:
        """What must not be shown of what it writes."""
        key = program.overrides.get("secrets_key")
        return self._secrets.values(key) if key else []

    def forget(self, program: Program) -> None:
        """The agent that had this program is gone."""
        key = program.overrides.get("secrets_key")
        if key:
            self._secrets.forget(key)

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
        limits, confinement = raw.get("limits") or {}, raw.get("confinement") or {}
        args, entrypoint, egress = raw.get("args"), raw.get("entrypoint"), raw.get("egress")
        mounts = [
            Mount("bind", one["target"], self._volumes.source(one["source"]), read_only=one["read_only"])
            for one in raw.get("mounts") or ()
        ]
        mounts += [Mount("tmpfs", one["target"], size=one.get("size")) for one in raw.get("tmpfs") or ()]
        env = dict(raw.get("env") or {})
        key = str(raw.get("secrets_key") or "")
        for one in raw.get("secrets") or () if key else ():
            data = self._secrets.get(key, one["name"])
            if one["env"]:
                env[one["name"]] = data.decode(errors="surrogateescape").rstrip("\n")
            if one["target"]:
                mounts.append(Mount("file", one["target"], data=data))
        return Overrides(
            args=None if args is None else tuple(args),
            entrypoint=None if entrypoint is None else tuple(entrypoint),
            env=tuple(env.items()),
            mounts=tuple(mounts),
            confinement=Confinement(
                add_capabilities=_capabilities(confinement.get("add_capabilities")),
                drop_capabilities=_capabilities(confinement.get("drop_capabilities")),
                seccomp=confinement.get("seccomp", ""),
                users=confinement.get("users", ""),
                label=confinement.get("label", ""),
                ulimits=tuple(Ulimit(**one) for one in confinement.get("ulimits") or ()),
                devices=tuple(confinement.get("devices") or ()),
            ),
            read_only=bool(raw.get("read_only")),
            disk=raw.get("disk"),
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


def _capabilities(names: Iterable[str] | None) -> tuple[str, ...]:
    return tuple(capability_name(name) for name in names or ())


def _wanted(definition: Mapping[str, Any], call: RunAgent) -> list[dict[str, Any]]:
    """Where the secrets that were given go: as the package says, or as the call does, else to files in /run/secrets.
    InvalidArgument `secret-missing` where the package needs more."""
    given = {one.name: one.target for one in call.secrets}
    declared = {one["name"]: one for one in definition.get("secrets") or ()}
    missing = [name for name, one in declared.items() if one.get("required", True) and name not in given]
    if missing:
        raise InvalidArgument(
            f"the package needs secrets that were not given: {', '.join(missing)}",
            code="secret-missing",
            hint=f"--secret {missing[0]}=FILE, or --secret {missing[0]}=env:VARIABLE",
        )
    wanted = []
    for name, target in given.items():
        env = bool(declared.get(name, {}).get("env", False))
        place = target or declared.get(name, {}).get("target", "") or ("" if env else f"/run/secrets/{name}")
        wanted.append({"name": name, "target": place, "env": env})
    return wanted


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
