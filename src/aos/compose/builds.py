"""Builds, and what is told of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aos.compose.agentfiles import agentfile
from aos.compose.caches import existing_caches, open_cache
from aos.compose.lock_files import honoured, lock_of
from aos.compose.packages import content_store, local_registry
from aos.compose.runtimes import runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path
    from typing import Any, Literal

    from aos.build import BuildRequest, BuildServices
    from aos.build.explain.why import Explanation
    from aos.build.plugins import Plugins
    from aos.build.progress.events import How
    from aos.config import Config
    from aos.content.compression import Compression
    from aos.package import Package


__all__ = [
    "build",
    "build_explanation",
    "build_plan",
    "build_plugins",
    "build_request",
    "build_services",
    "write_digest",
]


def build_request(
    config: Config,
    environ: Mapping[str, str],
    *,
    context: Path,
    file: Path | None = None,
    tags: Sequence[str] = (),
    labels: Sequence[str] = (),
    output: Path | None = None,
    build_args: Sequence[str] = (),
    target: str | None = None,
    platform: str = "",
    use_lock: bool = True,
    use_cache: bool = True,
    fresh_stages: Sequence[str] = (),
    jobs: int = 0,
    cache_from: Sequence[Path] = (),
    cache_to: Sequence[Path] = (),
    secrets: Sequence[str] = (),
    ssh: Sequence[str] = (),
    compression: Compression = "gzip",
    epoch: str = "",
    warn: Callable[[str], None] = lambda text: None,
) -> BuildRequest:
    """To build the Agentfile of a context, or `file`. `secrets`, `ssh`: as the options of `aos build` have them.
    `warn` is told of caches to read that do not exist (yet): the build goes on without them."""
    from aos.agentfile.labels import labelled
    from aos.build import BuildRequest, source_date_epoch
    from aos.ids import RandomIds
    from aos.oci.reference import parse_reference

    definition = agentfile(config, environ, context=context, file=file, build_args=build_args).definition
    return BuildRequest(
        definition=labelled(definition, labels),
        context=context,
        lock=honoured(lock_of(context, file)[1]) if use_lock else None,
        tags=tuple(dict.fromkeys(map(parse_reference, tags))),
        output=output,
        target=target,
        platform=platform,
        use_cache=use_cache,
        fresh_stages=frozenset(fresh_stages),
        cache_from=existing_caches(environ, cache_from, warn),
        cache_to=tuple(open_cache(environ, directory, create=True) for directory in cache_to),
        epoch=source_date_epoch(environ, context, epoch),
        jobs=jobs,
        id=RandomIds().fresh(),
        **_lent(environ, secrets, ssh),
        compression=compression,
    )


def build(
    config: Config,
    environ: Mapping[str, str],
    request: BuildRequest,
    progress: How = "quiet",
    warnings: Iterable[str] = (),
    *,
    twice: bool = False,
) -> Package:
    """Build; progress goes to standard error. `warnings` are what there was to warn of before. `twice`: build again
    in other circumstances, and raise FailedPrecondition (`not-reproducible`) when that gives another package."""
    from aos.build import Warned, build_blocking, open_progress

    with open_progress(progress) as shown:
        for warning in warnings:
            shown.emit(Warned(warning))
        if twice:
            from aos.build.reproduce.again import build_twice

            def elsewhere(root: Path, environ: Mapping[str, str]) -> BuildServices:
                return build_services(config, environ, root)

            return build_twice(request, build_services(config, environ), shown, elsewhere)
        return build_blocking(request, build_services(config, environ), shown)


def build_plan(
    config: Config, environ: Mapping[str, str], request: BuildRequest, form: Literal["text", "json", "dot"]
) -> str:
    """What a build would do, and what is known of it; nothing is executed."""
    from aos.build import outline
    from aos.build.plan.shown import print_plan

    return print_plan(outline(request, build_services(config, environ)), form)


def build_explanation(config: Config, id: str) -> Explanation:
    """Why the steps of a build were executed, or were not. `id`: of the build, its beginning, or `LAST`."""
    from aos.build.explain.records import Records
    from aos.build.explain.why import explain

    records = Records(config.root / "build/records")
    build, earlier = records.find(id)
    return explain(build, earlier, records.files)


def _lent(environ: Mapping[str, str], secrets: Sequence[str], ssh: Sequence[str]) -> dict[str, Any]:
    """What of a build request steps may use and nothing keeps."""
    if not secrets and not ssh:
        return {}
    import resource

    from aos.build.steps.secrets import parse_secret
    from aos.build.steps.ssh_agents import parse_ssh

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # secrets are in this process's memory
    return {
        "secrets": tuple(parse_secret(text, environ) for text in secrets),
        "ssh": tuple(parse_ssh(text, environ) for text in ssh),
    }


def write_digest(file: Path, digest: str) -> None:
    """As a whole, where it is a file. OSError as the system has it."""
    from aos.build.workspace.replace import replace_file

    if file.exists() and not file.is_file():  # /dev/stdout
        file.write_text(digest)
    else:
        replace_file(file, digest.encode(), mode=0o644)


def build_services(config: Config, environ: Mapping[str, str], root: Path | None = None) -> BuildServices:
    """What builds work with; the runtime is made when a step needs it. `root`: where content and state of builds
    are, instead of the installation's; sandboxes stay where its sweeps find them."""
    from dataclasses import replace

    from aos.build import BuildServices
    from aos.clock import SystemClock
    from aos.ids import RandomIds

    place = config if root is None else replace(config, root=root)
    content = content_store(place)
    return BuildServices(
        content=content,
        registry=local_registry(place, content),
        runtime=lambda: runtime(config, content),
        directory=place.root / "build",
        environ=environ,
        clock=SystemClock(),
        ids=RandomIds(),
        cache_size=config.build_cache,
        plugins=build_plugins(environ),
    )


def build_plugins(environ: Mapping[str, str]) -> Plugins:
    """Raise InvalidArgument (`plugin-timeout-invalid`)."""
    from datetime import timedelta

    from aos.build.plugins import EXECUTE_LIMIT, INPUTS_LIMIT, Plugins
    from aos.errors import InvalidArgument

    text = environ.get("AOS_PLUGIN_TIMEOUT")
    if not text:
        return Plugins(environ=environ)
    if not (text.isascii() and text.isdecimal() and 0 < int(text) <= EXECUTE_LIMIT.total_seconds() * 24):
        raise InvalidArgument(
            f"AOS_PLUGIN_TIMEOUT is {text!r:.40}, which is not a number of seconds up to a day",
            code="plugin-timeout-invalid",
            hint="unset it, or set it to a whole number: AOS_PLUGIN_TIMEOUT=7200",
        )
    limit = timedelta(seconds=int(text))
    return Plugins(environ=environ, inputs_limit=min(INPUTS_LIMIT, limit), execute_limit=limit)
