"""The verbs history, diff and packages du as a person types them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aos.compose.packages import content_store, local_registry
from aos.package import assemble
from package_making import DEFINITION, built_layer, image

if TYPE_CHECKING:
    from aos.package import Package
    from fix_build import Builder
    from fix_installation import Installation


@pytest.fixture
def packages(installation: Installation) -> tuple[Package, Package]:
    """`base:1`, and `next:1` with one step more on top of it."""
    content = content_store(installation.config)
    registry = local_registry(installation.config, content)
    base = built_layer(content.blobs, {"etc/motd": b"hello", "srv/\udcff\x1b[2J": b"x"}, "copy . /")
    more = built_layer(
        content.blobs, {"etc/motd": b"welcome", "opt/new": b"y" * 3000}, "run: make " + "x" * 99
    )
    made = []
    for name, layers, env in (("base", [base], ("A=b",)), ("next", [base, more], ("A=c",))):
        definition = DEFINITION | {
            "metadata": {"name": name, "version": "1.0.0"},
            "stages": [{"name": "", "base": "base:1" if name == "next" else "scratch"}],
        }
        one = assemble(content.blobs, definition_json=definition, image=image(env=env), layers=layers)
        registry.tag(f"{name}:1", one.manifest_digest, name=name, version="1.0.0", size=one.size)
        made.append(one)
    return made[0], made[1]


def test_history(installation: Installation, packages: tuple[Package, Package]) -> None:
    layers = packages[1].layers
    head, configuration, last, first = installation("history", "next:1").out.splitlines()
    assert head.split() == ["LAYER", "SIZE", "UNPACKED", "STAGE", "CACHE", "KEY", "CREATED", "BY"]
    assert configuration.startswith("-") and "aos: configuration" in configuration
    assert last.startswith(layers[1].digest[7:19]) and last.endswith("…")
    assert first.startswith(layers[0].digest[7:19]) and first.endswith("copy . /")
    assert "10 KiB" in first
    whole = installation("history", "--no-trunc", "next:1").out
    assert layers[1].digest in whole and layers[1].diff_id in whole and "x" * 99 in whole
    assert installation("history", "-q", "next:1").out.split() == [layers[1].digest, layers[0].digest]
    facts = installation("history", "next:1", "-o", "json").json
    assert [one["empty_layer"] for one in facts] == [True, False, False]
    assert facts[2]["unpacked_size"] == 10240
    assert "`aos packages ls` lists" in installation("history", "none:1", check=3).err


def test_diff(installation: Installation, packages: tuple[Package, Package]) -> None:
    shown = installation("diff", "base:1", "next:1").out
    assert "1 -> 2, 1 the same" in shown
    assert "~ env A: b -> c" in shown
    assert "~ definition metadata.name: base -> next" in shown
    assert "/etc/motd" in shown and "content 5 B -> 7 B" in shown and "[copy . / -> run: make" in shown
    assert "+ /opt/new" in shown and "2.93 KiB" in shown
    assert "srv" not in shown
    assert installation("diff", "next:1").out == shown, "without another one it is the base"


def test_diff_from_scratch_escapes_what_names_would_do_to_a_terminal(
    installation: Installation, packages: tuple[Package, Package]
) -> None:
    shown = installation("diff", "base:1").out
    assert shown.startswith("from     scratch")
    assert "\x1b" not in shown and r"/srv/\xff\x1b[2J" in shown
    paths = [one["path"] for one in installation("diff", "base:1", "-o", "json").json["files"]]
    assert paths == ["/etc/motd", "/srv/\\xff\x1b[2J"]


def test_diff_says_by_its_exit_code(installation: Installation, packages: tuple[Package, Package]) -> None:
    installation("diff", "--exit-code", "base:1", "base:1")
    installation("diff", "base:1", "next:1")
    installation("diff", "--exit-code", "base:1", "next:1", check=1)
    installation("diff", "--exit-code", "--only", "packages", "base:1", "next:1")
    installation("diff", "--exit-code", "--path", "/srv", "base:1", "next:1")
    installation("diff", "--exit-code", "-p", "/opt/*", "base:1", "next:1", check=1)
    installation("diff", "--exit-code", "base:1", "none:1", check=3)


def test_diff_shows_what_is_asked_for(installation: Installation, packages: tuple[Package, Package]) -> None:
    only = installation("diff", "--only", "config", "base:1", "next:1").out
    assert "env A" in only and "motd" not in only
    facts = installation("diff", "-o", "json", "-p", "etc", "base:1", "next:1").json
    assert set(facts) == {"same", "before", "after", "shared_layers", "files"}
    (change,) = facts["files"]
    assert (change["path"], change["change"], change["aspects"]) == ("/etc/motd", "changed", ["content"])
    assert change["before"]["created_by"] == "copy . /"
    assert change["after"]["size"] == 7


def test_diff_with_a_base_that_has_moved(
    installation: Installation, packages: tuple[Package, Package]
) -> None:
    content = content_store(installation.config)
    registry = local_registry(installation.config, content)
    registry.tag("base:1", packages[1].manifest_digest)
    other = built_layer(content.blobs, {"x": b"y"})
    definition = packages[1].definition or {}
    made = assemble(content.blobs, definition_json=definition, image=image(), layers=[other])
    registry.tag("moved:1", made.manifest_digest)
    assert "base-moved" in installation("diff", "moved:1", "-o", "json", check=5).err
    registry.remove("base:1")
    assert "base:1" in installation("diff", "moved:1", check=3).err


def test_packages_du(installation: Installation, packages: tuple[Package, Package]) -> None:
    base, following = packages
    facts = installation("packages", "du", "-o", "json").json
    assert [one["references"] for one in facts["packages"]] == [["base:1"], ["next:1"]]
    assert [one["unique"] for one in facts["packages"]] == [0, following.layers[1].size]
    assert facts["size"] == following.size
    shown = installation("packages", "du").out
    assert "SHARED" in shown and "base:1" in shown and "PACKAGES" in shown
    assert "1 more: -n 2 shows all" in installation("packages", "du", "-n", "1").out
    inside = installation("packages", "du", "next:1").out
    assert "/opt/new" in inside and "hidden by later layers" in inside
    facts = installation("packages", "du", "next:1", "-o", "json").json
    assert facts["hidden"] == {"size": 5, "files": 1}
    assert facts["directories"][0] == {"path": "/opt", "size": 3000, "files": 1}
    assert [len(one["packages"]) for one in facts["layers"]] == [2, 1]
    assert base.layers[0].digest == facts["layers"][0]["digest"]
    assert "must be a number" in installation("packages", "du", "-n", "0", check=2).err


def test_shells_complete_the_names_of_packages(
    installation: Installation, packages: tuple[Package, Package]
) -> None:
    assert installation("completion", "packages").out == "base:1\nnext:1\n"
    assert "'diff') words=\"$words $(aos completion packages" in installation("completion", "bash").out


@pytest.mark.root
def test_a_built_package_and_its_base(builder: Builder) -> None:
    """The step that made a file, and the one that removed one, in a package that was really built."""
    context = builder.context(
        {"a.txt": "hello"},
        [{"copy": {"src": "a.txt", "dest": "/srv/"}}, {"run": "rm /bin/sh; echo hi >/srv/b"}],
    )
    builder.build(context)
    files = {one["path"]: one for one in builder.aos("diff", "it:1.0.0", "-o", "json").json["files"]}
    assert files["/srv/a.txt"]["after"]["created_by"] == "copy a.txt /srv/"
    assert files["/srv/b"]["after"]["created_by"].startswith("run rm /bin/sh")
    assert files["/bin/sh"]["removed_by"].startswith("run rm /bin/sh")
    assert set(files) - {"/bin", "/srv"} == {"/srv/a.txt", "/srv/b", "/bin/sh"}
