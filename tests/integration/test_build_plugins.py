"""Plugins that somebody else wrote: found, keyed by what they declare, and told apart from us when they fail."""

from __future__ import annotations

import asyncio
import json
import os
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from aos.agentfile.definition import Definition, Entrypoint, Metadata, Plugin, Stage
from aos.build import BuildRequest, BuildServices, build
from aos.build.plugins import BuildPlugin, Plugins, PluginTask
from aos.build.progress import Cached, Event, Finished, Output
from aos.clock import SystemClock
from aos.content.store import ContentStore
from aos.errors import Aborted, AosError, FailedPrecondition, InvalidArgument, NotFound
from aos.ids import RandomIds
from aos.registry.local import LocalRegistry

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from aos.package import Package
    from aos.runtime.protocol import Runtime

pytestmark = pytest.mark.root


class Motto:
    """The plugin of the documentation."""

    def inputs(self, options: Mapping[str, object]) -> Mapping[str, object]:
        if set(options) != {"text"}:
            raise ValueError("'text' is needed, and nothing else")
        return {"version": 1, "text": options["text"]}

    async def execute(self, task: PluginTask) -> None:
        (task.root / "motto").write_text(str(task.options["text"]))
        await task.run(["/bin/sh", "-c", 'echo "made $WHAT"; umask'], {"WHAT": "it", "PATH": "/usr/bin:/bin"})


@dataclass
class Recorder:
    events: list[Event] = field(default_factory=list)

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def count(self, kind: type) -> int:
        return sum(isinstance(event, kind) for event in self.events)


def _no_runtime() -> Runtime:
    class Nothing:
        async def list(self) -> list[Any]:
            return []

    return Nothing()  # type: ignore[return-value]


def _build(root: Path, plugin: BuildPlugin, **options: object) -> tuple[Package, Recorder]:
    content = ContentStore(root / "content")
    services = BuildServices(
        content=content,
        registry=LocalRegistry(root / "registry", content),
        runtime=_no_runtime,
        directory=root / "build",
        environ=dict(os.environ),
        clock=SystemClock(),
        ids=RandomIds(),
        plugins=Plugins({"motto": plugin}),
    )
    (root / "context").mkdir(exist_ok=True)
    definition = Definition(
        Metadata("it", "1.0.0"),
        (Stage("", "scratch", steps=(Plugin("motto", tuple(options.items())),)),),
        entrypoint=Entrypoint(("/x",)),
    )
    recorder = Recorder()
    package = asyncio.run(build(BuildRequest(definition, root / "context"), services, recorder))
    return package, recorder


def test_a_plugin_fills_a_layer_and_is_cached_by_what_it_declares(tmp_path: Path) -> None:
    package, first = _build(tmp_path, Motto(), text="hello")
    (layer,) = package.layers
    with tarfile.open(ContentStore(tmp_path / "content").blobs.path(layer.digest)) as archive:
        assert archive.getnames() == ["motto"]
        assert archive.getmember("motto").mtime == 0
    said = [event.line for event in first.events if isinstance(event, Output)]
    assert said == ["made it", "0022"]
    again, second = _build(tmp_path, Motto(), text="hello")
    assert (again.manifest_digest, second.count(Cached), second.count(Finished)) == (
        package.manifest_digest,
        1,
        0,
    )
    _, third = _build(tmp_path, Motto(), text="other")
    assert third.count(Finished) == 1


def test_wrong_options_are_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="'text' is needed") as caught:
        _build(tmp_path, Motto(), txt="hello")
    assert caught.value.code == "plugin-options"


class Raises(Motto):
    async def execute(self, task: PluginTask) -> None:
        (task.root / "half").write_text("x")
        raise KeyError("oops")


class Fails(Motto):
    async def execute(self, task: PluginTask) -> None:
        await task.run(["/bin/sh", "-c", "echo why; exit 3"], {})


class Garbage(Motto):
    def inputs(self, options: Mapping[str, object]) -> Mapping[str, object]:
        return {"not": {"json"}}


class InputsRaise(Motto):
    def inputs(self, options: Mapping[str, object]) -> Mapping[str, object]:
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("plugin", "kind", "code", "words"),
    [
        (Raises(), Aborted, "plugin-failed", "KeyError: 'oops'"),
        (Fails(), Aborted, "step-failed", "    why"),
        (Garbage(), InvalidArgument, "plugin-failed", "TypeError"),
        (InputsRaise(), InvalidArgument, "plugin-failed", "ZeroDivisionError"),
    ],
)
def test_a_plugin_that_fails(
    tmp_path: Path, plugin: BuildPlugin, kind: type[AosError], code: str, words: str
) -> None:
    with pytest.raises(kind) as caught:
        _build(tmp_path, plugin, text="x")
    assert caught.value.code == code
    assert words in caught.value.message
    work = tmp_path / "build/work"
    assert not work.exists() or list(work.iterdir()) == []


def test_an_ordinary_user_is_refused_with_a_hint_unless_nothing_is_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(FailedPrecondition) as caught:
        _build(tmp_path, Motto(), text="hello")
    assert caught.value.code == "needs-root"
    assert "sudo aos build" in (caught.value.hint or "")
    monkeypatch.undo()
    _build(tmp_path, Motto(), text="hello")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert _build(tmp_path, Motto(), text="hello")[1].count(Cached) == 1


def test_an_entry_point_is_found_and_an_unknown_name_lists_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution = tmp_path / "site/motto-1.0.dist-info"
    distribution.mkdir(parents=True)
    (distribution / "METADATA").write_text("Metadata-Version: 2.1\nName: motto\nVersion: 1.0\n")
    (distribution / "entry_points.txt").write_text(
        "[aos.build.plugins]\nmotto = motto_plugin:Motto\nbroken = motto_plugin:Nothing\n"
    )
    (tmp_path / "site/motto_plugin.py").write_text(
        "class Motto:\n    def inputs(self, options):\n        return {'seen': sorted(options)}\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "site")
    plugins = Plugins()
    assert json.dumps(plugins.inputs("motto", {"b": 1, "a": 2}, "Agentfile")) == '{"seen": ["a", "b"]}'
    with pytest.raises(InvalidArgument) as broken:
        plugins.get("broken")
    assert broken.value.code == "plugin-failed"
    with pytest.raises(NotFound) as unknown:
        plugins.get("nope")
    assert "debian" in (unknown.value.hint or "")
    assert "motto" in (unknown.value.hint or "")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "suite"),
        ({"suite": "Not A Suite"}, "suite"),
        ({"suite": "bookworm", "variant": "huge"}, "variant"),
        ({"suite": "bookworm", "include": "python3"}, "include"),
        ({"suite": "bookworm", "include": ["--evil"]}, "include"),
        ({"suite": "bookworm", "mirror": "x"}, "mirror"),
    ],
)
def test_options_of_the_debian_plugin(options: Mapping[str, object], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words) as caught:
        Plugins().inputs("debian", options, "Agentfile:1:1")
    assert caught.value.code == "plugin-options"


def test_the_debian_plugin_is_keyed_by_what_it_installs() -> None:
    one = Plugins().inputs("debian", {"suite": "bookworm", "include": ["b1", "a1"]}, "")
    other = Plugins().inputs("debian", {"suite": "bookworm", "include": ["a1", "b1"]}, "")
    assert one == other
    assert one["components"] == ["main"]
