"""The backends that sandboxes run in, and their network."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from aos.config import Config
    from aos.content.store import ContentStore
    from aos.runtime.facade import RuntimeFacade
    from aos.runtime.network.examine import Findings
    from aos.runtime.network.maker import BridgeMaker
    from aos.runtime.policy import Policy
    from aos.runtime.protocol import Runtime


__all__ = ["bridge_network", "network_findings", "own_user_ids", "policy", "runtime"]


def bridge_network(config: Config) -> BridgeMaker:
    """What connects sandboxes."""
    import os

    from aos.rootless.user import user_id
    from aos.runtime.network.maker import BridgeMaker

    ordinary = user_id(os.environ) != 0
    return BridgeMaker(config.installation, config.state / "network", config.network_pool, ordinary=ordinary)


def runtime(config: Config, content: ContentStore, network: BridgeMaker | None = None) -> RuntimeFacade:
    """Every backend of this installation, `config.runtime` by default."""
    from functools import partial

    from aos.runtime.backends.gvisor import Runsc
    from aos.runtime.backends.oci import Runc
    from aos.runtime.backends.supervised import SupervisedConfig, SupervisedRuntime
    from aos.runtime.choice import check_isolation
    from aos.runtime.deferred import deferred
    from aos.runtime.facade import RuntimeFacade

    supervised = SupervisedConfig(
        root=config.root,
        state=config.state,
        cgroup_parent=config.installation,
        conmon=config.conmon,
        seccomp=config.seccomp,
        users=config.users,
        ids=config.ids,
        device_hooks=config.allow_host_hooks,
    )
    network = network or bridge_network(config)
    return RuntimeFacade(
        {
            "oci": SupervisedRuntime(supervised, Runc(config.oci_runtime), content, network),
            "gvisor": SupervisedRuntime(supervised, Runsc(config.runsc), content, network),
            **{
                name: deferred(
                    partial(_containerd, config, content, network, name), config.root / "sandboxes" / name
                )
                for name in ("containerd", "kata")
            },
        },
        config.runtime,
        check_isolation(config.isolation, "[runtime] isolation"),
    )


def _containerd(config: Config, content: ContentStore, network: BridgeMaker, backend: str) -> Runtime:
    from aos.runtime.backends.containerd import ContainerdConfig, ContainerdRuntime

    containerd = ContainerdConfig(
        root=config.root,
        state=config.state,
        installation=config.installation,
        address=config.containerd,
        namespace=config.containerd_namespace,
        snapshotter=config.containerd_snapshotter,
        handler=config.containerd_handler,
        seccomp=config.seccomp,
        oci_runtime=config.oci_runtime,
        users=config.users,
        ids=config.ids,
        device_hooks=config.allow_host_hooks,
        kata_config=config.kata_config,
    )
    make = ContainerdRuntime.kata if backend == "kata" else ContainerdRuntime
    return make(containerd, content, network)


def policy(config: Config) -> Policy:
    from aos.runtime.capabilities import capability_name
    from aos.runtime.policy import Policy, parse_paths

    names = config.capabilities
    return Policy(
        own=(config.root, config.state),
        mounts=parse_paths(config.mounts, "[mounts] allow"),
        capabilities=None if names is None else frozenset(map(capability_name, names)),
        unconfined=config.unconfined,
        host_users=config.host_users,
        own_users=config.users == "private" or not config.host_users,
        host_network=config.network_host == "allow",
    )


def network_findings(config: Config) -> Findings:
    """What would keep agents of root's installation from networks of their own."""
    from aos.runtime.network.examine import examine_network

    network = bridge_network(config)()
    try:
        return examine_network(network)
    finally:
        network.close()


def own_user_ids(config: Config, snapshots: Path) -> tuple[int, int]:
    """(the first, for how many agents at once). FailedPrecondition `user-namespace-unavailable` where no agent can have
    any whose layers are below `snapshots`."""
    from aos.runtime.backends.supervised.user_ids import check_ids
    from aos.runtime.id_ranges import IdRanges

    ranges = IdRanges.of_host(config.ids)
    check_ids(ranges, snapshots)
    return ranges.pool[0], len(ranges)
