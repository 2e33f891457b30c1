"""Plugins that somebody else wrote: found, keyed by what they declare, and told apart from us when they fail."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import aos
from aos.agentfile.definition import Definition, Entrypoint, Metadata, Plugin, Stage
from aos.build import BuildRequest, BuildServices, build
from aos.build.plugins import BuildPlugin, Plugins, PluginTask
from aos.build.progress.events import Cached, Event, Finished, Output
from aos.clock import SystemClock
from aos.compose.builds import build_plugins
from aos.content.store import ContentStore
from aos.errors import Aborted, AosError, InvalidArgument, NotFound
from aos.ids import RandomIds
from aos.registry.local import LocalRegistry
from fix_installation import COMMAND, REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aos.package import Package
    from aos.runtime.protocol import Runtime
    from fix_build import Builder

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


def _build(root: Path, plugin: BuildPlugin | Plugins, **options: object) -> tuple[Package, Recorder]:
    content = ContentStore(root / "content")
    services = BuildServices(
        content=content,
        registry=LocalRegistry(root / "registry", content),
        runtime=_no_runtime,
        directory=root / "build",
        environ=dict(os.environ),
        clock=SystemClock(),
        ids=RandomIds(),
        plugins=plugin if isinstance(plugin, Plugins) else Plugins({"motto": plugin}),
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


OUTSIDE = """
import ctypes, os, pathlib, sys, time

class Motto:
    def inputs(self, options):
        return {"seen": sorted(options)}

    async def execute(self, task):
        (task.root / "motto").write_text(str(task.inputs["seen"]))
        await task.run(["/bin/sh", "-c", 'echo "made $WHAT"; umask'], {"WHAT": "it", "PATH": "/usr/bin:/bin"})

class Answers(Motto):
    def inputs(self, options): return ["no", "dict"]
class NoJson(Motto):
    def inputs(self, options): return {"not": {1, 2}}
class Huge(Motto):
    def inputs(self, options): return {"text": "x" * 2_000_000}
class WrongOptions(Motto):
    def inputs(self, options): raise ValueError("'text' is needed")
class Hangs(Motto):
    def inputs(self, options): print("so far", flush=True); time.sleep(600)
class Loud(Motto):
    def inputs(self, options):
        for _ in range(100): os.write(1, bytes(range(256)) * 400)
        os.write(2, b"\\nlast words\\n")
        raise KeyError("oops")
class Dies(Motto):
    def inputs(self, options): os._exit(3)
class Crashes(Motto):
    async def execute(self, task): print("so far", flush=True); ctypes.string_at(0)
class Raises(Motto):
    async def execute(self, task):
        (task.root / "half").write_text("x")
        raise KeyError("oops")
class Fails(Motto):
    async def execute(self, task): await task.run(["/bin/sh", "-c", "echo why; exit 3"], {})
class Blocks(Motto):
    async def execute(self, task):
        if os.fork() == 0:
            os.setsid()
        pathlib.Path("TRACE").write_text("here")
        while True: pass
class Returns(Motto):
    async def execute(self, task): return 7
class Leaves(Motto):
    async def execute(self, task):
        (task.root / "half").write_text("x")
        sys.exit()
class LeavesEarly(Motto):
    def inputs(self, options): os._exit(0)
class Floods(Motto):
    async def execute(self, task):
        for _ in range(200): os.write(1, b"y" * 65000 + b"\\n")
class NoCoroutine(Motto):
    def execute(self, task): (task.root / "x").write_text("x")
"""


LIMIT = timedelta(seconds=3)


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plugins:
    """The plugins of a distribution that is installed, by name; `motto` is the one that works."""
    site = tmp_path / "site"
    (site / "motto-1.0.dist-info").mkdir(parents=True)
    (site / "motto-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: motto\nVersion: 1.0\n")
    names = [
        line.split()[1].split("(")[0].rstrip(":")
        for line in OUTSIDE.splitlines()
        if line.startswith("class ")
    ]
    points = "".join(f"{name.lower()} = outside_plugin:{name}\n" for name in names)
    points += "broken = outside_plugin:Nothing\n"
    (site / "motto-1.0.dist-info/entry_points.txt").write_text(f"[aos.build.plugins]\n{points}")
    (site / "outside_plugin.py").write_text(OUTSIDE.replace("TRACE", str(tmp_path / "trace")))
    monkeypatch.syspath_prepend(site)
    return Plugins(environ=dict(os.environ), inputs_limit=LIMIT, execute_limit=LIMIT)


def test_a_plugin_from_outside_runs_in_a_process_of_its_own(tmp_path: Path, outside: Plugins) -> None:
    _, first = _build(tmp_path, outside, text="x")
    assert [event.line for event in first.events if isinstance(event, Output)] == ["made it", "0022"]
    assert "outside_plugin" not in sys.modules
    _, second = _build(tmp_path, outside, text="x")
    assert (second.count(Cached), second.count(Finished)) == (1, 0)


def test_the_version_of_a_plugin_s_distribution_is_one_of_its_inputs(
    tmp_path: Path, outside: Plugins
) -> None:
    assert outside.inputs("motto", {"b": 1, "a": 2}, "Agentfile") == {
        "seen": ["a", "b"],
        "tools": {"motto": "1.0"},
    }
    _build(tmp_path, outside, text="x")
    site = tmp_path / "site"
    (site / "motto-1.0.dist-info").rename(site / "motto-1.1.dist-info")
    (site / "motto-1.1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: motto\nVersion: 1.1\n")
    _, newer = _build(tmp_path, Plugins(environ=dict(os.environ)), text="x")
    assert newer.count(Finished) == 1


@pytest.mark.parametrize("text", ["soon", "0", "-1", "1.5", "100000"])
def test_a_time_limit_that_is_none(text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        build_plugins({"AOS_PLUGIN_TIMEOUT": text})
    assert caught.value.code == "plugin-timeout-invalid"
    assert build_plugins({"AOS_PLUGIN_TIMEOUT": "7"}).execute_limit == timedelta(seconds=7)


def test_an_unknown_plugin_lists_what_there_is(outside: Plugins) -> None:
    with pytest.raises(NotFound) as unknown:
        outside.get("nope")
    for name in ("debian", "git", "motto"):
        assert name in (unknown.value.hint or "")


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("broken", "plugin-failed", "AttributeError"),
        ("answers", "plugin-failed", "must return a dict"),
        ("nojson", "plugin-failed", "must return JSON"),
        ("huge", "plugin-failed", "more than 1 MiB"),
        ("wrongoptions", "plugin-options", "'text' is needed"),
        ("hangs", "plugin-timeout", "so far"),
        ("loud", "plugin-failed", "last words"),
        ("dies", "plugin-failed", "ended with exit code 3"),
        ("leavesearly", "plugin-failed", "ended without an answer"),
    ],
)
def test_a_plugin_from_outside_that_declares_badly(
    outside: Plugins, name: str, code: str, words: str
) -> None:
    with pytest.raises(AosError) as caught:
        outside.inputs(name, {}, "Agentfile:3:4")
    assert caught.value.code == code
    assert caught.value.message.startswith(f"Agentfile:3:4: plugin {name!r}")
    assert words in caught.value.message
    assert len(caught.value.message) < 6000


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("crashes", "plugin-failed", "so far"),
        ("raises", "plugin-failed", "failed: KeyError: 'oops'"),
        ("fails", "plugin-failed", "/bin/sh ended with exit code 3; its last output:\n    why"),
        ("blocks", "plugin-timeout", "did not end within 3 s"),
        ("returns", "plugin-failed", "must return None, not int 7"),
        ("leaves", "plugin-failed", "ended without an answer"),
    ],
)
def test_a_plugin_from_outside_that_fails(
    tmp_path: Path, outside: Plugins, name: str, code: str, words: str
) -> None:
    with pytest.raises(Aborted) as caught:
        _build(tmp_path, _named(outside, name), text="x")
    assert caught.value.code == code
    assert "plugin 'motto'" in caught.value.message
    assert words in caught.value.message
    assert list((tmp_path / "build/work").iterdir()) == []
    if name == "blocks":
        assert (tmp_path / "trace").read_text() == "here"
        assert not any(b"outside_plugin" in line for line in _command_lines())


def test_a_plugin_from_outside_may_flood_its_output_and_need_not_be_asynchronous(
    tmp_path: Path, outside: Plugins
) -> None:
    _, flooded = _build(tmp_path, _named(outside, "floods"), text="x")
    assert flooded.count(Output) == 200
    package, _ = _build(tmp_path, _named(outside, "nocoroutine"), other="x")
    assert len(package.layers) == 1


def _named(plugins: Plugins, name: str) -> Plugins:
    """The plugin of that name, called `motto`."""
    return Plugins({"motto": plugins.get(name)}, inputs_limit=LIMIT, execute_limit=LIMIT)


def _command_lines() -> list[bytes]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes())
    return found


def test_the_example_is_installed_and_used_as_its_author_would(builder: Builder) -> None:
    """examples/plugin-motto, built to a wheel and installed beside the command."""
    from aos.build.steps.uv import find_uv

    home = builder.contexts / "home"
    uv = str(find_uv())
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, home], check=True)
    site = next(home.glob("lib/python3*/site-packages"))
    ours = Path(aos.__file__).parents[1]
    (site / "__editable__openos_aos.pth").write_text(
        f"{ours}\nimport site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    )
    shutil.copy(COMMAND, home / "bin/aos")
    step = {"plugin": {"name": "motto", "with": {"text": "read the source"}}}
    context = builder.context({}, [step])
    layout = builder.contexts / "layout"
    words = [str(home / "bin/aos"), "build", "--progress", "plain", "-o", str(layout), str(context)]
    without = subprocess.run(words, env=builder.aos.environment(), capture_output=True, text=True)
    assert without.returncode == 3
    assert "there is no build plugin 'motto'" in without.stderr
    example = REPOSITORY / "examples/plugin-motto"
    shutil.copytree(example, builder.contexts / "source")
    subprocess.run(
        [uv, "pip", "install", "-q", "--python", home / "bin/python", builder.contexts / "source"], check=True
    )
    built = subprocess.run(words, env=builder.aos.environment(), capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert "| writing the motto" in built.stderr
    bundle = builder.contexts / "bundle"
    subprocess.run(["umoci", "unpack", "--image", f"{layout}:1.0.0", bundle], check=True, capture_output=True)
    motto = bundle / "rootfs/motto"
    assert motto.read_text() == "read the source\n"
    assert motto.stat().st_mode & 0o777 == 0o444


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
