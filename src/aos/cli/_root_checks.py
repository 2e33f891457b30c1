"""What root's agents can have besides: the checks of `aos doctor` for docs/isolation.md and docs/network.md that try what
the kernel makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aos.cli._checks import Check, Host
from aos.errors import AosError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aos.config import Config

__all__ = ["check_user_ids", "examine_networks"]

_FEW = 64
"""Agents: some distributions give root one range of 65,536 ids."""


def check_user_ids(config: Config, snapshots: Path) -> Check:
    """`snapshots`: an existing directory where layers are, or will be."""
    from aos.compose.runtimes import own_user_ids

    name = "own user ids"
    if config.users == "host":
        why = "agents have the host's, unless they ask for their own"
        return Check(name, "warn", why, 'set [isolation] userns to "auto" in the configuration')
    must = config.users == "private" or not config.host_users
    so = "cannot run" if must else "have the host's"
    try:
        first, agents = own_user_ids(config, snapshots)
    except AosError as error:
        why = error.message.partition(": ")[2] or error.message
        return Check(
            name,
            "fail" if must else "warn",
            f"agents {so}: {why}",
            "id-mapped mounts need Linux 5.19 and a file system that has them: set AOS_ROOT to a directory on ext4, xfs or btrfs",
        )
    words = f"for {agents} agents at once, from {first} on"
    if agents < _FEW:
        hint = (
            'give it more: [isolation] ids = "FIRST:COUNT", or root\'s lines in /etc/subuid and /etc/subgid'
        )
        return Check(name, "warn", f"{words}; others {so}", hint)
    return Check(name, "ok", words)


def examine_networks(config: Config, host: Host) -> Iterator[Check]:
    """`host`: where the settings are; what the kernel makes, and other firewalls, are those around this process."""
    from aos.compose.runtimes import network_findings

    found = network_findings(config)
    if found.kernel:
        why = f"agents can have none of their own: this kernel makes no {found.kernel}"
        yield Check(
            "networks",
            "warn",
            why,
            "modprobe bridge veth nf_tables nft_chain_nat nft_fib_inet nft_reject_inet nft_log",
        )
    else:
        off = host.read("proc/sys/net/ipv4/ip_forward").strip() == "0"
        later = "; ip_forward is 0, and set to 1 with the first agent that has one" if off else ""
        yield Check("networks", "ok", f"bridge, veth and nftables work{later}")
    if found.taken is not None:
        yield Check("addresses", "warn", found.taken.message, found.taken.hint)
    else:
        yield Check("addresses", "ok", f"{found.pool} for agents with a network of their own")
    if found.drops:
        yield Check(
            "other firewalls",
            "warn",
            f"what agents send is dropped by {', '.join(found.drops)}, unless a rule there lets it pass",
            f"iptables -I FORWARD -i {config.installation} -j ACCEPT; iptables -I FORWARD -o {config.installation} -j ACCEPT (docs/network.md)",
        )
    else:
        yield Check("other firewalls", "ok", "none drops whatever is forwarded")
