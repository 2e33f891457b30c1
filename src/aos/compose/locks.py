"""Writing locks, and checking them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aos.compose.builds import build_request, build_services
from aos.compose.lock_files import lock_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from aos.build.progress.events import How
    from aos.config import Config


__all__ = ["check_lock", "lock"]


def lock(
    config: Config,
    environ: Mapping[str, str],
    *,
    context: Path,
    file: Path | None = None,
    build_args: Sequence[str] = (),
    secrets: Sequence[str] = (),
    ssh: Sequence[str] = (),
    upgrade: Collection[str] | None = (),
    progress: How = "quiet",
) -> tuple[Path, list[str]]:
    """Write the lock of an Agentfile: where it is, and what has changed in it. `upgrade`: names; None: everything."""
    from aos.agentfile.lock import save_lock
    from aos.build import open_progress
    from aos.build.lock.locking import Upgrade, changes, lock_blocking

    request = build_request(
        config,
        environ,
        context=context,
        file=file,
        build_args=build_args,
        use_lock=False,
        secrets=secrets,
        ssh=ssh,
    )
    path, old = lock_of(context, file)
    chosen = Upgrade(everything=upgrade is None, names=frozenset(upgrade or ()))
    with open_progress(progress) as shown:
        new = lock_blocking(request, build_services(config, environ), shown, old, chosen)
    if new != old:
        save_lock(new, path)
    return path, changes(old, new)


def check_lock(
    config: Config,
    environ: Mapping[str, str],
    *,
    context: Path,
    file: Path | None = None,
    build_args: Sequence[str] = (),
) -> tuple[Path, list[str]]:
    """Where the lock is, and how it differs from the Agentfile; nothing is built."""
    from aos.build.lock.locking import check_blocking

    request = build_request(
        config, environ, context=context, file=file, build_args=build_args, use_lock=False
    )
    path, found = lock_of(context, file)
    if found is None:
        return path, ["there is no lock"]
    return path, check_blocking(request, build_services(config, environ), found)
