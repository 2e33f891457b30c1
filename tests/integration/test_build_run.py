"""What `run` steps may use beside their stage: caches, secrets, mounts, SSH agents; and how they are run."""

from __future__ import annotations

import base64
import contextlib
import gzip
import os
import select
import shutil
import subprocess
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aos.build.cache.mounts import cache_mounts, remove_cache_mount, size_on_disk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fix_build import Builder

pytestmark = pytest.mark.root

WORD = "correct-horse-battery"


# Secrets.


def test_a_secret_is_a_file_of_the_step_s_user_or_a_variable_and_then_nowhere(builder: Builder) -> None:
    """Must-show 6 of the build engine: used as a file and as a variable, said aloud, and then searched for."""
    script = (
        "stat -c '%U %a' /run/secrets/token > /seen; ls -l /run/secrets/token; cat /run/secrets/token;"
        'test "$TOKEN" = "$(cat /run/secrets/token)" && echo same >> /seen;'
        "printf correct-horse-; sleep 0.1; echo battery; echo is $TOKEN $TOKEN; base64 /run/secrets/token;"
        "echo $TOKEN >&2; env > /dev/null; touch /run/secrets/token 2>/dev/null || echo read-only >> /seen"
    )
    context = builder.context(
        {},
        [
            {
                "run": {
                    "command": script,
                    "secrets": [{"id": "token", "env": "TOKEN", "target": "/run/secrets/token"}],
                }
            },
            {"run": {"command": 'test ! -e /run/secrets/token && test -z "$TOKEN" && env > /environment'}},
        ],
    )
    file = builder.contexts / "token.txt"
    file.write_text(WORD + "\n")
    result = builder.build(context, "--secret", f"id=token,src={file}", "-o", builder.contexts / "layout")
    assert WORD not in result.err + result.out
    assert "is *** ***" in result.err
    root = builder.unpack(context)  # cached: it needs no secret
    assert (root / "seen").read_text() == "root 400\nsame\nread-only\n"
    assert not (root / "run/secrets").exists()
    file.unlink()
    places = (builder.aos.root, builder.aos.state, builder.contexts)
    assert _holders(places, WORD.encode()) == []
    assert _holders(places, base64.b64encode(WORD.encode()[:21])) == []
    witness = builder.contexts / "witness.gz"
    witness.write_bytes(gzip.compress(WORD.encode()))
    assert _holders(places, WORD.encode()) == [witness]  # the search can find


def test_a_secret_is_on_no_disk_while_its_step_runs_either(builder: Builder) -> None:
    secrets = [{"id": "token", "env": "TOKEN", "target": "/run/secrets/token"}]
    step = {"run": {"command": "echo $TOKEN; echo ready; sleep 60", "secrets": secrets}}
    builder.aos.environ["token"] = WORD  # type: ignore[index]
    running = builder.aos.start(
        "build", "--progress", "plain", "--secret", "id=token", builder.context({}, [step])
    )
    _until(running, b"| ready")
    assert _holders((builder.aos.root, builder.aos.state), WORD.encode()) == []
    assert not any(WORD.encode() in line for line in _command_lines())
    running.terminate()
    _, rest = running.communicate(timeout=5)
    assert WORD.encode() not in rest


def _command_lines() -> Iterator[bytes]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield path.read_bytes()


def test_a_secret_of_the_environment_never_reaches_a_failing_step_s_error(builder: Builder) -> None:
    script = "cat /run/secrets/key; echo; echo $K; exit 3"
    step = {"run": {"command": script, "user": "1000", "secrets": ["key", {"id": "key", "env": "K"}]}}
    context = builder.context({}, [step])
    value = "-----BEGIN-----\nfirst line of it\nsecond line of it"
    builder.aos.environ["KEY_OF_MINE"] = value  # type: ignore[index]
    result = builder.build(context, "--secret", "id=key,env=KEY_OF_MINE", check=10)
    assert "***" in result.err
    for line in value.splitlines():
        assert line not in result.err
    assert _holders((builder.aos.root, builder.aos.state), b"first line of it") == []


def test_a_secret_that_is_missing_says_which_step_needs_it_and_how_to_give_it(builder: Builder) -> None:
    step = {"run": {"command": "true", "secrets": ["pypi"]}}
    context = builder.context({}, [step])
    result = builder.build(context, "--secret", "id=PATH", check=5)
    assert "Agentfile:" in result.err
    assert "needs the secret 'pypi', which was not given (given: PATH)" in result.err
    assert "--secret id=pypi,src=FILE" in result.err
    optional = {
        "run": {"command": "test ! -e /run/secrets/pypi", "secrets": [{"id": "pypi", "required": False}]}
    }
    builder.build(builder.context({}, [optional], name="optional"))


def test_a_secret_s_value_is_not_in_the_cache_key_but_what_is_done_with_it(builder: Builder) -> None:
    def built(mode: str, value: str) -> str:
        step = {"run": {"command": "echo x > /x", "secrets": [{"id": "s", "mode": mode}]}}
        builder.aos.environ["s"] = value  # type: ignore[index]
        return builder.build(builder.context({}, [step]), "--secret", "id=s").err

    assert "\n1 executed in" in built("0400", "one")
    assert "run echo x > /x: cached" in built("0400", "two")
    assert "\n1 executed in" in built("0440", "two")


def test_a_secret_variable_needs_a_shell_and_says_so(builder: Builder) -> None:
    context = builder.context(
        {},
        [
            {"copy": {"from": "busybox:1", "src": "/bin/busybox", "dest": "/"}},
            {"run": {"command": ["/busybox", "true"], "secrets": [{"id": "s", "env": "S"}]}},
        ],
        base="scratch",
    )
    result = builder.build(context, "--secret", "id=s,env=PATH", check=5)
    assert "no /bin/sh" in result.err
    assert "as files" in result.err


def _holders(places: tuple[Path, ...], word: bytes) -> list[Path]:
    """The files that hold `word`, as they are or decompressed; names and links count too."""
    found = []
    for place in places:
        for path in place.rglob("*"):
            texts = [os.fsencode(path.name)]
            if path.is_symlink():
                texts.append(os.fsencode(path.readlink()))
            elif path.is_file():
                data = path.read_bytes()
                texts += [data, _decompressed(data)]
            if any(word in text for text in texts):
                found.append(path)
    return found


def _decompressed(data: bytes) -> bytes:
    if data.startswith(b"\x1f\x8b"):
        return gzip.decompress(data)
    if data.startswith(b"\x28\xb5\x2f\xfd"):
        return subprocess.run(["zstd", "-dc"], input=data, capture_output=True, check=True).stdout
    try:
        return zlib.decompress(data)
    except zlib.error:
        return b""


# Caches.


def test_a_cache_outlives_builds_and_is_in_no_layer(builder: Builder) -> None:
    def step(word: str, **more: object) -> dict[str, object]:
        cache = {"target": "/var/cache/it", "id": "it/../../x"}
        script = f"echo {word} >> /var/cache/it/log; cat /var/cache/it/log > /tmp/log-{word}"
        return {"run": {"command": script, "cache": [cache], **more}}

    room = {"run": "mkdir -m 1777 /tmp"}
    builder.build(builder.context({}, [room, step("one", user="1000:1000")], name="first"))
    root = builder.unpack(builder.context({}, [room, step("two")], name="second"))
    assert (root / "tmp/log-two").read_text() == "one\ntwo\n"
    assert not (root / "var/cache").exists()
    (use,) = cache_mounts(builder.aos.root / "build/mounts")
    assert (use.kind, use.id, use.in_use) == ("run", "it/../../x", False)
    assert size_on_disk(use.directory) >= 4096
    assert use.directory.stat().st_uid == 1000
    assert remove_cache_mount(use)
    assert cache_mounts(builder.aos.root / "build/mounts") == ()
    root = builder.unpack(builder.context({}, [room, step("three")], name="third"))
    assert (root / "tmp/log-three").read_text() == "three\n"


def test_steps_that_lock_a_cache_take_turns_and_private_ones_do_not_meet(builder: Builder) -> None:
    def stage(name: str, sharing: str) -> dict[str, object]:
        script = f"for i in 1 2 3 4 5; do echo {name} >> /c/log; sleep 0.1; done; cp /c/log /log-{name}"
        step = {"run": {"command": script, "cache": [{"target": "/c", "id": sharing, "sharing": sharing}]}}
        return {"name": name, "from": "busybox:1", "steps": [step]}

    for sharing in ("locked", "private"):
        context = builder.context(
            {},
            [{"copy": {"from": name, "src": f"/log-{name}", "dest": "/"}} for name in "ab"],
            stages=[stage(name, sharing) for name in "ab"],
            name=sharing,
        )
        err = builder.build(context).err
        root = builder.unpack(context)
        logs = [(root / f"log-{name}").read_text().split() for name in "ab"]
        if sharing == "locked":
            assert "waiting for the cache 'locked'" in err
            assert sorted(logs, key=len)[1] in (["a"] * 5 + ["b"] * 5, ["b"] * 5 + ["a"] * 5)
        else:
            assert logs == [["a"] * 5, ["b"] * 5]
            assert len(cache_mounts(builder.aos.root / "build/mounts")) == 3


def test_a_step_that_waits_for_a_cache_is_stopped_at_once(builder: Builder) -> None:
    cache = [{"target": "/c", "sharing": "locked"}]
    holding = builder.aos.start(
        "build",
        "--progress",
        "plain",
        builder.context({}, [{"run": {"command": "echo held; sleep 60", "cache": cache}}], name="holding"),
    )
    _until(holding, b"held")
    waiting = builder.aos.start(
        "build",
        "--progress",
        "plain",
        builder.context({}, [{"run": {"command": "echo mine", "cache": cache}}], name="waiting"),
    )
    _until(waiting, b"waiting for the cache")
    mounts = builder.aos.root / "build/mounts"
    assert [use.in_use for use in cache_mounts(mounts)] == [True]
    assert not remove_cache_mount(cache_mounts(mounts)[0])
    waiting.terminate()
    assert waiting.wait(2) == 10
    holding.kill()  # -9: the lock goes with it
    for process in (waiting, holding):
        process.communicate()
    assert "mine" in builder.build(builder.contexts / "waiting").err


def _until(process: subprocess.Popen[bytes], word: bytes) -> None:
    assert process.stderr is not None
    seen = b""
    while word not in seen:
        assert select.select([process.stderr], [], [], 20)[0], seen
        piece = os.read(process.stderr.fileno(), 1 << 16)
        assert piece, seen
        seen += piece


# Mounts.


def test_files_of_stages_images_and_the_context_are_mounted_read_only(builder: Builder) -> None:
    script = (
        "cat /made/result /made/below/deep /one > /seen; /tools/sh -c 'echo ran >> /seen'; ls /src/app >> /seen;"
        "cat '/src/app/a*b' >> /seen; stat -c '%a %Y %u' /src/app/code.py >> /seen;"
        "for d in /made /src /tools; do touch $d/x 2>/dev/null || echo refused >> /seen; done"
    )
    mounts = [
        {"target": "/made", "from": "make", "source": "/out"},
        {"target": "/one", "from": "make", "source": "/out/one"},
        {"target": "/tools", "from": "busybox:1", "source": "bin"},
        {"target": "/src", "source": "."},
        {"target": "/code", "source": "app/code.py"},
    ]
    context = builder.context(
        {"app/code.py": "code", "app/a*b": "star\n", "app/hidden.pyc": "x", ".aosignore": "**/*.pyc\n"},
        [{"run": {"command": script, "mounts": mounts}}],
        stages=[
            {
                "name": "make",
                "from": "busybox:1",
                "steps": [
                    {"run": "mkdir -p /out/below; echo result > /out/result; echo old > /out/below/deep"},
                    {"run": "echo deep > /out/below/deep; ln -s result /out/one"},
                ],
            }
        ],
    )
    (context / "app/code.py").chmod(0o600)
    root = builder.unpack(context)
    seen = (root / "seen").read_text().splitlines()
    assert seen[:4] == ["result", "deep", "result", "ran"]
    assert seen[4:] == ["a*b", "code.py", "star", "644 0 0", "refused", "refused", "refused"]
    for name in ("made", "one", "tools", "src", "code"):
        assert not (root / name).exists()


def test_a_context_mount_is_in_the_key_exactly_as_it_is_seen(builder: Builder) -> None:
    step = {"run": {"command": "cat /src/f > /f", "mounts": [{"target": "/src"}]}}
    context = builder.context(
        {"f": "1", "Agentfile": "", ".aosignore": "ignored\nAgentfile\n.aosignore\n"}, [step]
    )
    assert "\n1 executed in" in builder.build(context).err
    (context / "ignored").write_text("x")
    assert "cat /src/f > /f: cached" in builder.build(context).err
    (context / "f").write_text("2")
    assert "\n1 executed in" in builder.build(context).err


def test_a_cache_and_a_secret_inside_of_the_context_s_files(builder: Builder) -> None:
    script = "echo built > /src/build/out/x; cat /src/.netrc /src/f; test ! -e /etc/out"
    step = {
        "command": script,
        "mounts": [{"target": "/src"}],
        "cache": [{"target": "/src/build/out"}],
        "secrets": [{"id": "netrc", "target": "/src/.netrc"}],
    }
    context = builder.context({"f": "f\n"}, [{"run": step}])
    builder.aos.environ["netrc"] = "machine"  # type: ignore[index]
    assert "| ***f" in builder.build(context, "--secret", "id=netrc").err
    assert sorted(path.name for path in context.iterdir()) == ["Agentfile", "f"]
    step["mounts"] = [{"target": "/src", "from": "busybox:1"}]
    refused = builder.build(builder.context({}, [{"run": step}]), "--secret", "id=netrc", check=2)
    assert "lies inside of '/src', which is read-only" in refused.err


@pytest.mark.parametrize(
    "mount",
    [{"target": "/x", "source": "nothing"}, {"target": "/x", "from": "busybox:1", "source": "/nothing"}],
)
def test_a_mount_of_what_is_not_there(builder: Builder, mount: object) -> None:
    result = builder.build(builder.context({}, [{"run": {"command": "true", "mounts": [mount]}}]), check=3)
    assert "nothing" in result.err
    assert "hint:" in result.err


# SSH agents.


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A real agent with one key: its socket, and the key's file."""
    if shutil.which("ssh-agent") is None:
        pytest.skip("openssh-client is not installed")
    key, socket = tmp_path / "key", tmp_path / "agent.sock"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "it@test", "-f", key], check=True)
    process = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    subprocess.run(["ssh-add", "-q", key], env={"SSH_AUTH_SOCK": str(socket), "PATH": os.defpath}, check=True)
    yield socket, key
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_step_uses_an_ssh_agent_as_any_user(builder: Builder, agent: tuple[Path, Path]) -> None:
    socket, key = agent
    context = _with_ssh(builder)
    for words in (("--ssh", f"default={socket}"), ("--ssh", f"default={key}")):
        result = builder.build(context, "--no-cache", *words)
        assert "it@test" in result.err
        assert "(ED25519)" in result.err
        assert "| not removed" in result.err
    builder.aos.environ["SSH_AUTH_SOCK"] = str(socket)  # type: ignore[index]
    assert "it@test" in builder.build(context, "--no-cache", "--ssh", "default").err
    listed = subprocess.run(
        ["ssh-add", "-l"], env={"SSH_AUTH_SOCK": str(socket), "PATH": os.defpath}, capture_output=True
    )
    assert b"it@test" in listed.stdout  # `ssh-add -D` of the step did not reach it


def test_the_agent_of_a_build_ends_with_it_also_by_kill_9(builder: Builder, agent: tuple[Path, Path]) -> None:
    def agents() -> set[str]:
        found = set()
        for path in Path("/proc").glob("[0-9]*/comm"):
            with contextlib.suppress(OSError):
                if path.read_text() == "ssh-agent\n":
                    found.add(path.parent.name)
        return found

    before = agents()
    context = builder.context({}, [{"run": {"command": "echo ready; sleep 60", "ssh": True}}])
    running = builder.aos.start("build", "--progress", "plain", "--ssh", f"default={agent[1]}", context)
    _until(running, b"| ready")
    (own,) = agents() - before
    with os.fdopen(os.pidfd_open(int(own))) as process:
        running.kill()
        running.communicate()
        assert select.select([process], [], [], 5)[0]
    builder.build(builder.context({}, [{"run": "true"}], name="next"))  # sweeps


def _with_ssh(builder: Builder) -> Path:
    """A step with the host's ssh-add and the libraries that it needs."""
    program = shutil.which("ssh-add")
    assert program is not None
    files: dict[str, str | bytes] = {"bin/ssh-add": Path(program).read_bytes()}
    for line in subprocess.run(
        ["ldd", program], capture_output=True, text=True, check=True
    ).stdout.splitlines():
        path = next((word for word in line.split() if word.startswith("/")), None)
        if path is not None:
            files[path.removeprefix("/")] = Path(path).read_bytes()
    step = {
        "command": "ssh-add -l && { ssh-add -D || echo not removed; }; test -S $SSH_AUTH_SOCK",
        "user": "1000:1000",
        "ssh": True,
        "env": {"PATH": "/ssh/bin:/bin"},
    }
    context = builder.context(files, [])
    for name in files:
        (context / name).chmod(0o755)
    libraries = sorted({name.split("/")[0] for name in files} - {"bin"})
    steps: list[object] = [
        {"copy": {"src": "bin", "dest": "/ssh/bin"}},
        {"run": "echo 'me:x:1000:1000::/:/bin/sh' >> /etc/passwd"},
    ]
    steps += [{"copy": {"src": name, "dest": f"/{name}"}} for name in libraries]
    return builder.context(files, [*steps, {"run": step}])


def test_an_agent_that_is_missing_and_a_key_that_cannot_be_used(builder: Builder, tmp_path: Path) -> None:
    context = builder.context({}, [{"run": {"command": "true", "ssh": ["deploy"]}}])
    result = builder.build(context, check=5)
    assert "needs the SSH agent 'deploy'" in result.err
    assert "--ssh deploy=SOCKET" in result.err
    (tmp_path / "bad").write_text("no key")
    (tmp_path / "bad").chmod(0o600)
    assert "ssh-add cannot use" in builder.build(context, "--ssh", f"deploy={tmp_path / 'bad'}", check=5).err
    builder.aos.environ["SSH_AUTH_SOCK"] = ""  # type: ignore[index]
    assert "SSH_AUTH_SOCK is not set" in builder.build(context, "--ssh", "deploy", check=3).err


# How steps run.


def test_a_step_has_no_input_a_plain_umask_and_leaves_no_process_behind(builder: Builder) -> None:
    context = builder.context(
        {},
        [
            {"run": "cat > /input; umask > /umask; sh -c 'exec sleep 1000 >/dev/null 2>&1' & echo started"},
            {"run": "(sleep 1000; echo late) & echo also with its output"},
            {"run": "ulimit -c > /core"},
        ],
    )
    old = os.umask(0o077)
    try:
        root = builder.unpack(context)
    finally:
        os.umask(old)
    assert (root / "input").read_text() == ""
    assert (root / "umask").read_text() == "0022\n"
    assert (root / "core").read_text() == "0\n"


def test_an_image_without_a_shell_says_so(builder: Builder) -> None:
    context = builder.context(
        {},
        [{"copy": {"from": "busybox:1", "src": "/bin/busybox", "dest": "/"}}, {"run": "true"}],
        base="scratch",
    )
    result = builder.build(context, check=10)
    assert "'/bin/sh'" in result.err
    assert "exec form" in result.err
