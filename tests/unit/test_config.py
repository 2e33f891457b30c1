"""Where things are kept, and the one TOML file: precedence, and refusals that name file and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from aos.config import Config, load_config
from aos.errors import InvalidArgument


def load(environ: dict[str, str], uid: int = 1000) -> Config:
    return load_config({"HOME": "/nowhere/home", **environ}, uid=uid)


def written(tmp_path: Path, text: str | bytes) -> dict[str, str]:
    file = tmp_path / "config.toml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return {"AOS_CONFIG": str(file)}


def test_root_has_the_system_directories(tmp_path: Path) -> None:
    config = load(written(tmp_path, ""), uid=0)
    assert (config.root, config.state) == (Path("/var/lib/aos"), Path("/run/aos"))
    assert config.socket == Path("/run/aos/kernel/kernel.sock")


def test_a_user_has_the_xdg_directories() -> None:
    assert load({}).root == Path("/nowhere/home/.local/share/aos")
    assert load({}).state == Path("/run/user/1000/aos")
    config = load({"XDG_DATA_HOME": "/data", "XDG_RUNTIME_DIR": "/runtime"})
    assert (config.root, config.state) == (Path("/data/aos"), Path("/runtime/aos"))


def test_the_users_file_is_found_by_xdg(tmp_path: Path) -> None:
    (tmp_path / "aos").mkdir()
    (tmp_path / "aos/config.toml").write_text('[runtime]\noci = "crun"\n')
    assert load({"XDG_CONFIG_HOME": str(tmp_path)}).oci_runtime == "crun"


def test_the_file_beats_defaults_and_the_environment_beats_the_file(tmp_path: Path) -> None:
    environ = written(
        tmp_path,
        'root = "/a/root"\nstate = "/a/state"\n'
        '[runtime]\ndefault = "memory"\noci = "crun"\nconmon = "/opt/conmon"\nseccomp = "/s.json"\n',
    )
    assert load(environ) == Config(
        root=Path("/a/root"),
        state=Path("/a/state"),
        runtime="memory",
        oci_runtime="crun",
        conmon="/opt/conmon",
        seccomp="/s.json",
    )
    config = load({**environ, "AOS_ROOT": "/b", "AOS_STATE": "/c", "AOS_RUNTIME": "oci"})
    assert (config.root, config.state, config.runtime) == (Path("/b"), Path("/c"), "oci")
    assert config.oci_runtime == "crun"


def test_an_empty_variable_counts_as_unset() -> None:
    assert load({"AOS_ROOT": "", "AOS_CONFIG": ""}).root == Path("/nowhere/home/.local/share/aos")


def test_installations_are_told_apart_by_root() -> None:
    names = {Config(root=Path(root), state=Path("/s")).installation for root in ("/a", "/b")}
    assert len(names) == 2
    assert all(name.startswith("aos-") and len(name) == 12 for name in names)


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("rot = '/x'", "config-invalid", "rot: unknown key"),
        ("[runtime]\nengine = 'x'", "config-invalid", "runtime.engine: unknown key"),
        ("root = 3", "config-invalid", "root: must be a string"),
        ("root = 'relative'", "config-invalid", "root must be an absolute path, not 'relative'"),
        ("[isolation]\nuserns = 'none'", "config-invalid", "isolation.userns must be auto, private or host"),
        ("root = ", "config-invalid", "not TOML"),
        (b"\xff\xfe", "config-invalid", "not TOML"),
    ],
)
def test_a_bad_file_is_refused_with_its_name_and_key(
    tmp_path: Path, text: str | bytes, code: str, words: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        load(written(tmp_path, text))
    assert caught.value.code == code
    assert words in caught.value.message


def test_an_unknown_key_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument) as caught:
        load(written(tmp_path, "x = '1'"))
    assert caught.value.hint
    assert "runtime.conmon" in caught.value.hint


def test_a_relative_variable_is_refused_by_name() -> None:
    with pytest.raises(InvalidArgument) as caught:
        load({"AOS_STATE": "run/aos"})
    assert "AOS_STATE" in (caught.value.hint or "")


def test_a_file_that_was_named_must_exist_and_be_readable(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument) as missing:
        load({"AOS_CONFIG": str(tmp_path / "none.toml")})
    assert missing.value.code == "config-unreadable"
    assert str(tmp_path / "none.toml") in missing.value.message
    with pytest.raises(InvalidArgument) as unreadable:
        load({"AOS_CONFIG": str(tmp_path)})  # a directory: unreadable for root, too
    assert unreadable.value.code == "config-unreadable"
    assert unreadable.value.hint
