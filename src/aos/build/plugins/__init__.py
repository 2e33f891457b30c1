"""Plugins: steps that somebody else wrote.

A plugin is an object (or a class that takes no arguments) behind an entry point of the group
`aos.build.plugins`; the entry point's name is what an Agentfile says in `plugin: {name: …}`. `debian` and `git` are
built in. docs/plugins.md is the page for those who write one.

    class Motto:
        def inputs(self, options):
            if set(options) != {"text"}: raise ValueError("'text' is needed, and nothing else")
            return {"version": 1, "text": options["text"]}
        async def execute(self, task):
            (task.root / "motto").write_text(task.options["text"])
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol, cast

from aos.errors import Aborted, AosError, InvalidArgument, NotFound

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from aos.build.cache.kept import Kept
    from aos.build.lock.locked import StepLock
    from aos.content.tree import LayerTree

__all__ = ["BuildPlugin", "PluginStopped", "PluginTask", "Plugins"]

GROUP = "aos.build.plugins"
BUILT_IN = ("debian", "git")
INPUTS_LIMIT = timedelta(seconds=30)
"""A plan waits for it: a look at a remote, no download."""
EXECUTE_LIMIT = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class PluginTask:
    """What a plugin works with. It may change `root` and `cache`, and nothing else on the host."""

    options: Mapping[str, object]
    """`with:` of the step."""
    inputs: Mapping[str, object]
    """What `inputs` has declared, but for `tools`: what was found out then is not asked again."""
    root: Path
    """The upper directory to fill: what lies here becomes the layer, with owners, modes and links as they are."""
    below: LayerTree
    """The files that the step stands on, to look at."""
    epoch: int
    """SOURCE_DATE_EPOCH: the date of what the plugin makes, in seconds since 1970."""
    platform: str
    """As in OCI: `linux/amd64`."""
    environ: Mapping[str, str]
    """Of whoever builds; must not shape the result."""
    cache: Path
    """A directory of the plugin's own that outlives builds; it may be empty at any time."""
    scratch: Path
    """An empty directory that ends with the build."""
    output: Callable[[str], None]
    """Shows a line of progress."""
    run: Callable[[Sequence[str], Mapping[str, str]], Awaitable[None]]
    """Run a command of the host with that environment, its output shown; ends when the build ends, also by
    kill -9, and its mounts with it. Raises Aborted (`step-failed`) unless it exits with 0."""
    lock: StepLock | None = None
    """What a lock means to the step, if the plugin `locks`: execute its `pins`, or, where they are None, decide, say
    in `found` what was decided (lines that begin with a name), and keep the files it names. None: there is no lock,
    or the plugin is not built in."""
    kept: Kept | None = None
    """Files that outlive builds by their digest, for what a lock names; there where `lock` can be."""


class BuildPlugin(Protocol):
    """One that sets `locks = True` has steps whose result depends on the day, and honours `PluginTask.lock`."""

    def inputs(self, options: Mapping[str, object]) -> Mapping[str, object]:
        """Everything that shapes the result beside what it stands on, as JSON: it is in the cache key.

        `tools`, when it is there, names versions of the host's programs that do: `{"mmdebstrap": "1.3.5"}`.
        Must be quick, and must not change anything. Raise ValueError (or InvalidArgument) for wrong options."""
        ...

    async def execute(self, task: PluginTask) -> None:
        """Fill `task.root`. The same inputs must give the same bytes, whenever and wherever."""
        ...


class LookingPlugin(Protocol):
    """A built-in plugin that finds out, when it is asked for its inputs, what its options name at this time.

    A lock keeps the inputs named in `looks_up`, and gives them back as `known`."""

    looks_up: tuple[str, ...]

    def inputs(
        self, options: Mapping[str, object], known: Mapping[str, str] = ...
    ) -> Mapping[str, object]: ...


class PluginStopped(Exception):
    """How a plugin from outside ended that did not do its work."""

    def __init__(self, how: str, *, code: str = "plugin-failed", tail: Sequence[str] = ()) -> None:
        super().__init__(how)
        self.how = how
        self.code = code
        self.tail = tail
        """Its last output."""


class Plugins:
    """Finds plugins by name: the built-in ones, then entry points, which run in processes of their own."""

    def __init__(
        self,
        extra: Mapping[str, BuildPlugin] | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        inputs_limit: timedelta = INPUTS_LIMIT,
        execute_limit: timedelta = EXECUTE_LIMIT,
    ) -> None:
        """`extra`: plugins of the caller's, which run in this process. `environ`: of whoever builds."""
        self._found: dict[str, BuildPlugin] = dict(extra or {})
        self._environ = dict(environ or {})
        self._inputs_limit = inputs_limit
        self.execute_limit = execute_limit

    def get(self, name: str) -> BuildPlugin:
        """Raise NotFound (`plugin-not-found`), InvalidArgument (`plugin-ambiguous`)."""
        if name not in self._found:
            self._found[name] = self._find(name)
        return self._found[name]

    def inputs(
        self, name: str, options: Mapping[str, object], where: str, known: Mapping[str, str] | None = None
    ) -> Mapping[str, object]:
        """Ask a plugin for its inputs; `known` are those it need not look up. Raise InvalidArgument (`plugin-options`,
        `plugin-failed`), Aborted (`plugin-timeout`), and what `get` raises."""
        import json

        plugin = self.get(name)
        try:
            if known and hasattr(plugin, "looks_up"):
                found = cast("LookingPlugin", plugin).inputs(options, known)
            else:
                found = plugin.inputs(options)
            json.dumps(found)
        except AosError as error:
            error.message = f"{where}: plugin {name!r}: {error.message}"
            raise
        except ValueError as error:
            raise InvalidArgument(
                f"{where}: plugin {name!r}: {error}",
                code="plugin-options",
                hint="see what the plugin takes; docs/build.md has the built-in ones",
                plugin=name,
            ) from error
        except PluginStopped as error:
            kind = Aborted if error.code == "plugin-timeout" else InvalidArgument
            said = "".join(f"\n    {line}" for line in error.tail)
            raise kind(
                f"{where}: plugin {name!r} {error.how}" + (f"; its last output:{said}" if said else ""),
                code=error.code,
                hint="this is a defect of the plugin; tell its author",
                plugin=name,
            ) from error
        except Exception as error:
            raise InvalidArgument(
                f"{where}: plugin {name!r} failed: {type(error).__name__}: {error}",
                code="plugin-failed",
                hint="this is a defect of the plugin; tell its author",
                plugin=name,
            ) from error
        return found

    def _find(self, name: str) -> BuildPlugin:
        if name == "debian":
            from aos.build.plugins.debian import DebianPlugin

            return DebianPlugin()
        if name == "git":
            from aos.build.plugins.git import GitPlugin

            return GitPlugin(self._environ)
        from importlib.metadata import entry_points

        from aos.build.plugins.external import ExternalPlugin

        known = entry_points(group=GROUP)
        points = {(point.dist.name if point.dist else "?"): point for point in known.select(name=name)}
        if len(points) > 1:
            raise InvalidArgument(
                f"there are several build plugins {name!r}: of {', '.join(sorted(points))}",
                code="plugin-ambiguous",
                hint="uninstall the others",
                plugin=name,
            )
        for distribution, point in points.items():
            version = point.dist.version if point.dist else ""
            return ExternalPlugin(
                name,
                f"{point.module}:{point.attr}",
                distribution,
                version,
                self._environ,
                self._inputs_limit,
            )
        names = ", ".join(sorted({*BUILT_IN, *(point.name for point in known)}))
        raise NotFound(
            f"there is no build plugin {name!r}",
            code="plugin-not-found",
            hint=f"plugins here: {names}; others come as Python packages with an entry point of {GROUP!r}",
            plugin=name,
        )
