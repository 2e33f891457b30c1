"""Plugins: steps that somebody else wrote.

A plugin is an object (or a class that takes no arguments) behind an entry point of the group
`aos.build.plugins`; the entry point's name is what an Agentfile says in `plugin: {name: …}`. `debian` is built in.

    class Motto:
        def inputs(self, options):
            if set(options) != {"text"}: raise ValueError("'text' is needed, and nothing else")
            return {"version": 1, "text": options["text"]}
        async def execute(self, task):
            (task.root / "motto").write_text(task.options["text"])
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from aos.errors import AosError, InvalidArgument, NotFound

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from aos.content.tree import LayerTree

__all__ = ["BuildPlugin", "PluginTask", "Plugins"]

GROUP = "aos.build.plugins"


@dataclass(frozen=True, slots=True)
class PluginTask:
    """What a plugin works with. It may change `root` and `cache`, and nothing else on the host."""

    options: Mapping[str, object]
    """`with:` of the step."""
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


class BuildPlugin(Protocol):
    def inputs(self, options: Mapping[str, object]) -> Mapping[str, object]:
        """Everything that shapes the result beside what it stands on, as JSON: it is in the cache key.

        `tools`, when it is there, names versions of the host's programs that do: `{"mmdebstrap": "1.3.5"}`.
        Must be quick, and must not change anything. Raise ValueError (or InvalidArgument) for wrong options."""
        ...

    async def execute(self, task: PluginTask) -> None:
        """Fill `task.root`. The same inputs must give the same bytes, whenever and wherever."""
        ...


class Plugins:
    """Finds plugins by name: the built-in ones, then entry points."""

    def __init__(self, extra: Mapping[str, BuildPlugin] | None = None) -> None:
        self._found: dict[str, BuildPlugin] = dict(extra or {})

    def get(self, name: str) -> BuildPlugin:
        """Raise NotFound (`plugin-not-found`), InvalidArgument (`plugin-failed`: it cannot be loaded)."""
        if name not in self._found:
            self._found[name] = self._load(name)
        return self._found[name]

    def inputs(self, name: str, options: Mapping[str, object], where: str) -> Mapping[str, object]:
        """Ask a plugin for its inputs. Raise InvalidArgument (`plugin-options`, `plugin-failed`)."""
        import json

        plugin = self.get(name)
        try:
            found = plugin.inputs(options)
            json.dumps(found)
        except AosError:
            raise
        except ValueError as error:
            raise InvalidArgument(
                f"{where}: plugin {name!r}: {error}",
                code="plugin-options",
                hint="see docs/build.md",
                plugin=name,
            ) from error
        except Exception as error:
            raise _failed(name, error) from error
        return found

    def _load(self, name: str) -> BuildPlugin:
        if name == "debian":
            from aos.build.plugins.debian import DebianPlugin

            return DebianPlugin()
        from importlib.metadata import entry_points

        known = entry_points(group=GROUP)
        for point in known.select(name=name):
            try:
                loaded = point.load()
                return cast("BuildPlugin", loaded() if isinstance(loaded, type) else loaded)
            except Exception as error:
                raise _failed(name, error) from error
        names = ", ".join(sorted({"debian", *(point.name for point in known)}))
        raise NotFound(
            f"there is no build plugin {name!r}",
            code="plugin-not-found",
            hint=f"plugins here: {names}; others come as Python packages with an entry point of {GROUP!r}",
            plugin=name,
        )


def _failed(name: str, error: Exception) -> InvalidArgument:
    return InvalidArgument(
        f"plugin {name!r} failed: {type(error).__name__}: {error}",
        code="plugin-failed",
        hint="this is a defect of the plugin; tell its author",
        plugin=name,
    )
