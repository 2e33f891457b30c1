"""The Agentfile: what is accepted, and that every mistake is told in its place."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from aos.agentfile import AgentfileError, json_schema, load, loads, starting_files
from aos.agentfile.definition import (
    Bandwidth,
    Copy,
    Definition,
    Hook,
    HttpProbe,
    Install,
    Network,
    Plugin,
    Probe,
    RestartLimit,
    Run,
)
from aos.errors import InvalidArgument, NotFound

HEAD = "apiVersion: aos.io/v1\nkind: AgentPackage\nmetadata: {name: it, version: 1.0.0}\n"
EXAMPLES = Path(__file__).parents[3] / "examples"


def problems(text: str | bytes) -> list[tuple[int, int, str, str]]:
    with pytest.raises(AgentfileError) as refused:
        loads(text if isinstance(text, bytes) else text.encode())
    return [(one.line, one.column, one.code, f"{one.message}; {one.hint}") for one in refused.value.problems]


@pytest.mark.parametrize("name", ["hello", "mcp-git", "notes"])
def test_examples_load_and_survive_their_canonical_form(name: str) -> None:
    definition = load(EXAMPLES / name / "Agentfile")
    raw = json.loads(json.dumps(definition.to_json()))
    assert Definition.from_json(raw).to_json() == definition.to_json()
    assert definition.metadata.name == name


def test_the_whole_language_of_today() -> None:
    definition = loads(
        HEAD.encode()
        + b"""
stages:
  - {name: tools, from: scratch, steps: [{plugin: debian}]}
from: tools
steps:
  - copy: {src: [a, "b*"], dest: /x/, owner: "5:6", mode: "0750"}
  - copy: {from: tools, src: /bin/sh, dest: /sh, mode: 0755}
  - install: {pip: [requests==2.32.3]}
  - install: {pip: {requirements: r.txt}, network: false}
  - install: {apt: [git]}
  - run: echo hello
  - run: [echo, hello]
  - run: {command: [x], env: {A: "1"}, user: nobody, workDir: /tmp, network: true}
  - plugin: {name: debian, with: {include: [python3], deep: {n: 1, t: true, x: null, f: 1.5}}}
config: {env: {B: x, A: z}, workDir: /app, user: "1000", image: {StopSignal: SIGINT}}
entrypoint: {command: [python3], args: [main.py]}
resources: {cpu: 500m, memory: 512Mi, pids: 64}
network: host
restart: on-failure
"""
    )
    steps = definition.final.steps
    assert [stage.name for stage in definition.stages] == ["tools", ""]
    assert steps[0] == Copy(("a", "b*"), "/x/", "", (5, 6), 0o750)
    assert steps[1] == Copy(("/bin/sh",), "/sh", "tools", (0, 0), 0o755)
    assert steps[2] == Install("pip", ("requests==2.32.3",))
    assert steps[3] == Install("pip", (), "r.txt", network=False)
    assert steps[5:7] == (Run(("/bin/sh", "-c", "echo hello")), Run(("echo", "hello")))
    assert steps[7] == Run(("x",), (("A", "1"),), "nobody", "/tmp", network="host")
    assert steps[8] == Plugin(
        "debian", (("deep", {"f": 1.5, "n": 1, "t": True, "x": None}), ("include", ["python3"]))
    )
    assert (definition.resources.cpu, definition.resources.memory) == (0.5, 512 << 20)
    assert (definition.network, definition.restart) == ("host", "on-failure")
    assert definition.config.env == (("B", "x"), ("A", "z"))


def test_what_an_agent_s_life_is_like() -> None:
    definition = loads(
        HEAD.encode()
        + b"""
from: scratch
restart: {policy: "on-failure:4", limit: {restarts: 5, within: 1m30s}}
stopGracePeriod: 2.5
health: {http: {port: 8080, path: /healthz}, interval: 500ms, retries: 2, startPeriod: 10s, onFailure: none}
readiness: {tcp: 8080, timeout: 1}
hooks:
  preStart: {exec: "./migrate", user: app}
  preStop: [{exec: [drain, ""], timeout: 5s}, {exec: note, where: host}]
"""
    )
    assert (definition.restart, definition.restart_limit) == ("on-failure:4", RestartLimit(5, 90.0))
    assert definition.stop_grace == 2.5
    assert definition.health == Probe(
        http=HttpProbe(8080, "/healthz"), interval=0.5, retries=2, start_period=10.0, on_failure="none"
    )
    assert definition.readiness == Probe(tcp=8080, timeout=1.0)
    assert definition.hooks.pre_start == (Hook(("/bin/sh", "-c", "./migrate"), user="app"),)
    assert definition.hooks.pre_stop == (
        Hook(("drain", ""), timeout=5.0, on_failure="ignore"),
        Hook(("/bin/sh", "-c", "note"), where="host", on_failure="ignore"),
    )
    raw = json.loads(json.dumps(definition.to_json()))
    assert Definition.from_json(raw).to_json() == definition.to_json()
    assert Definition.from_json(raw).hooks == definition.hooks
    assert Definition.from_json(raw).health == definition.health


def test_json_is_an_agentfile_too_and_key_order_does_not_matter() -> None:
    fields: dict[str, Any] = {
        "apiVersion": "aos.io/v1",
        "kind": "AgentPackage",
        "metadata": {"name": "it", "version": "1.0.0"},
        "from": "scratch",
        "entrypoint": {"command": ["x"]},
    }
    one = loads(json.dumps(fields, indent=2).encode())
    two = loads(json.dumps(dict(reversed(fields.items()))).encode())
    assert one.to_json() == two.to_json()


@pytest.mark.parametrize(
    ("text", "place", "code", "words"),
    [
        ("form: scratch", (4, 1), "unknown-field", "did you mean 'from'?"),
        ("from: scratch\nfrom: x", (5, 1), "duplicate-key", "twice"),
        ("from: scratch\nrestart: no", (5, 10), "wrong-type", 'quote it: "no"'),
        ("from: scratch\nconfig: {env: {AT: 1:30}}", (5, 20), "wrong-type", "base of 60"),
        ("from: scratch\nconfig: {env: {DAY: 2024-01-01}}", (5, 21), "wrong-type", "date"),
        ("from: scratch\nconfig: {env: {N: 8080}}", (5, 19), "wrong-type", 'quote it: "8080"'),
        ("from: scratch\nconfig: {env: {1: x}}", (5, 16), "agentfile-invalid", "must be a string"),
        ("from: scratch\nconfig: {env: {<<: x}}", (5, 16), "agentfile-invalid", "merge keys"),
        ("from: scratch\nconfig: [a]", (5, 9), "agentfile-invalid", "must be a mapping"),
        ("from: scratch\nentrypoint: {command: python3 x}", (5, 23), "agentfile-invalid", "must be a list"),
        ("from: scratch\nsteps: [{run: x, copy: y}]", (5, 9), "agentfile-invalid", "exactly one of"),
        ("from: scratch\nsteps: [{copy: {src: a}}]", (5, 16), "missing-field", "needs 'dest'"),
        (
            "from: scratch\nsteps: [{copy: {src: a, dest: b, mode: 999}}]",
            (5, 40),
            "agentfile-invalid",
            "octal",
        ),
        ("from: scratch\nsteps: [{copy: {from: zz, src: a, dest: b}}]", (5, 9), "unknown-stage", "zz"),
        ("from: scratch\nsteps: [{install: {npm: [x]}}]", (5, 25), "not-yet-supported", "npm"),
        ("from: scratch\nsteps: [{run: {command: x, secrets: [{}]}}]", (5, 38), "missing-field", "'id'"),
        ("from: scratch\nresources: {gpu: nvidia}", (5, 18), "agentfile-invalid", "not a device"),
        ("from: scratch\nresources: {memory: 12Q}", (5, 21), "agentfile-invalid", "512Mi"),
        ("from: scratch\nresources: {memory: 1k}", (5, 21), "agentfile-invalid", "at least"),
        ("from: scratch\nresources: {pids: 0}", (5, 19), "agentfile-invalid", "at least 1"),
        ("from: scratch\nrestart: sometimes", (5, 10), "agentfile-invalid", "on-failure:5"),
        ("from: scratch\nrestart: always:5", (5, 10), "agentfile-invalid", "on-failure:5"),
        ("from: scratch\nrestart: on-failure:0", (5, 10), "agentfile-invalid", "on-failure:5"),
        (
            "from: scratch\nrestart: {policy: always, limit: {restarts: 3}}",
            (5, 34),
            "missing-field",
            "within",
        ),
        ("from: scratch\nstopGracePeriod: soon", (5, 18), "agentfile-invalid", "1m30s"),
        ("from: scratch\nnetwork: vlan", (5, 10), "agentfile-invalid", "cannot be 'vlan'"),
        ("from: scratch\nnetwork: {egress: all}", (5, 19), "agentfile-invalid", "cannot be 'all'"),
        (
            "from: scratch\nnetwork: {egress: [allow 10.0.0.1/8]}",
            (5, 20),
            "egress-invalid",
            "has host bits set",
        ),
        (
            "from: scratch\nnetwork: {egress: [allow a.example]}",
            (5, 20),
            "capability-missing",
            "names a host",
        ),
        ("from: scratch\nnetwork: {ports: [8080:80]}", (5, 19), "agentfile-invalid", "a port of the host"),
        ("from: scratch\nnetwork: {ports: [70000]}", (5, 19), "port-invalid", "70000"),
        ("from: scratch\nnetwork: {bandwidth: {up: fast}}", (5, 27), "rate-invalid", "fast"),
        (
            "from: scratch\nnetwork: {mode: host, ports: [80]}",
            (5, 30),
            "agentfile-invalid",
            "for `mode: bridge`",
        ),
        ("from: scratch\nextends: ./base", (5, 10), "extends-not-found", "there is no base"),
        ("from: scratch\nhealth: {x: 1}", (5, 10), "unknown-field", "tcp"),
        ("from: scratch\nhealth: {}", (5, 9), "agentfile-invalid", "exactly one way"),
        ("from: scratch\nhealth: {tcp: 1, exec: x}", (5, 9), "agentfile-invalid", "exactly one way"),
        ("from: scratch\nhealth: {tcp: 70000}", (5, 15), "agentfile-invalid", "at most 65535"),
        ("from: scratch\nhealth: {http: {port: 1, path: x}}", (5, 32), "agentfile-invalid", "begin with '/'"),
        ("from: scratch\nhealth: {tcp: 1, interval: 0}", (5, 28), "agentfile-invalid", "at least 0.1"),
        ("from: scratch\nreadiness: {tcp: 1, onFailure: none}", (5, 21), "unknown-field", "tcp"),
        ("from: scratch\nhooks: {preStrat: {exec: x}}", (5, 9), "unknown-field", "'preStart'"),
        ("from: scratch\nhooks: {postStop: {exec: x}}", (5, 19), "agentfile-invalid", "where: host"),
        (
            "from: scratch\nhooks: {preStop: {exec: x, onFailure: fail}}",
            (5, 39),
            "agentfile-invalid",
            "nothing is left",
        ),
        ("steps: [{run: x}]", (4, 8), "missing-field", "'from'"),
    ],
)
def test_a_mistake_is_told_in_its_place(text: str, place: tuple[int, int], code: str, words: str) -> None:
    found = problems(HEAD + text)
    assert any(
        (line, column, kind) == (*place, code) and words in said for line, column, kind, said in found
    ), found


def test_a_version_that_yaml_takes_for_a_number() -> None:
    text = HEAD.replace("1.0.0", "1.10") + "from: scratch\n"
    assert (3, 31, "wrong-type") in [one[:3] for one in problems(text)]
    assert "semantic version" in problems(text.replace("1.10", '"1.10"'))[0][3]
    assert "three numbers" in problems(text)[0][3]


def test_all_mistakes_at_once_and_in_order() -> None:
    found = problems("kind: X\nmetadata: {name: Bad, version: 1}\nfoo: 1\n")
    assert [one[0] for one in found] == sorted(one[0] for one in found)
    assert len(found) >= 4


def test_a_circle_of_stages_is_shown() -> None:
    stages = "stages: [{name: a, from: b}, {name: b, from: c}, {name: c, from: a}]\nfrom: a\n"
    [(_, _, code, said)] = problems(HEAD + stages)
    assert code == "stage-cycle"
    assert "a -> b -> c -> a" in said


def test_the_offending_line_is_shown_with_a_mark() -> None:
    with pytest.raises(AgentfileError) as refused:
        loads((HEAD + "from: scratch\nrestart: no\n").encode(), "my/Agentfile")
    assert "my/Agentfile:5:10: " in refused.value.message
    assert "    restart: no\n             ^" in refused.value.message


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"\xff", "UTF-8"),
        (b"a: \x00", "U+0000"),
        (b"a: 1\n---\nb: 2\n", "second document"),
        (b"a:\n\tb: 1\n", "tab"),
        (b"a: [", "not YAML"),
        (b"[" * 100_000, "nesting"),
        (b"- " * 5000, "nesting"),
        (b"? " * 200_000, "nesting"),
        (b"a: !!python/object:os.system x", "has no meaning"),
        (b"a: &x [*x]", "alias of what it stands in"),
        (b"x" * (4 << 20) + b"y", "at most"),
        (b"a: *nothing", "undefined alias"),
        (b"- a\n", "must be a mapping"),
    ],
)
def test_what_is_no_document(data: bytes, words: str) -> None:
    assert any(words in said for *_, said in problems(data))


def test_an_alias_bomb_is_bounded() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    assert any("expand" in said for *_, said in problems("\n".join(lines)))


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as missing:
        load(tmp_path / "Agentfile")
    assert missing.value.code == "agentfile-missing"
    with pytest.raises(InvalidArgument) as unreadable:
        load(tmp_path)
    assert unreadable.value.code == "agentfile-unreadable"


def test_what_init_writes_is_valid_and_so_is_the_bom() -> None:
    text = starting_files("my-agent")["Agentfile"]
    assert loads(b"\xef\xbb\xbf" + text.encode()).metadata.name == "my-agent"


def test_without_from_the_last_stage_is_the_package() -> None:
    stages = "stages: [{name: a, from: scratch}, {name: b, from: a}]\n"
    definition = loads((HEAD + stages).encode())
    assert definition.final.name == "b"


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused_politely(data: bytes) -> None:
    with pytest.raises(AgentfileError):
        loads(data)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
_FIELDS = st.sampled_from([*json_schema()["properties"], "else"])


@given(st.dictionaries(_FIELDS, _VALUES, max_size=6))
def test_arbitrary_fields_are_read_or_refused(fields: dict[str, object]) -> None:
    base = {"apiVersion": "aos.io/v1", "kind": "AgentPackage", "metadata": {"name": "a", "version": "1.0.0"}}
    text = yaml.safe_dump({**base, "from": "scratch", **fields}, allow_unicode=True)
    try:
        definition = loads(text.encode("utf-8", "surrogatepass"))
    except AgentfileError as refused:
        assert all(problem.line >= 1 and problem.column >= 1 for problem in refused.problems)
    else:
        assert Definition.from_json(definition.to_json()).to_json() == definition.to_json()


def test_schema_knows_every_field_of_the_reader() -> None:
    from aos.agentfile.read import FIELDS

    assert set(json_schema()["properties"]) == set(FIELDS)


def test_a_foreign_definition_is_refused() -> None:
    with pytest.raises(InvalidArgument) as refused:
        Definition.from_json({"metadata": {"wrong": 1}, "stages": []})
    assert refused.value.code == "definition-invalid"


@pytest.mark.parametrize(
    "text",
    [
        "resources: {memory: " + "9" * 400 + "}",
        "resources: {cpu: " + "9" * 400 + "}",
        "resources: {pids: 010}",
        "stages: [" + ", ".join(f"{{name: s{n}, from: s{n + 1}}}" for n in range(3000)) + "]",
    ],
)
def test_too_much_is_told_and_breaks_nothing(text: str) -> None:
    assert problems(HEAD + "from: scratch\n" + text)


def test_brackets_in_text_are_no_nesting_and_json_has_surrogates() -> None:
    script = "".join("printf '\\e[31m'; " for _ in range(100))
    loads((HEAD + f"from: scratch\nsteps: [{{run: {json.dumps(script)}}}]\n").encode())
    fields = {"apiVersion": "aos.io/v1", "kind": "AgentPackage", "from": "scratch"}
    metadata = {"name": "it", "version": "1.0.0", "description": "\N{GRINNING FACE}"}
    text = json.dumps({**fields, "metadata": metadata})
    assert loads(text.encode()).metadata.description == "\N{GRINNING FACE}"


def test_arguments_may_be_empty() -> None:
    text = HEAD + 'from: scratch\nentrypoint: {command: [x], args: [""]}\n'
    assert loads(text.encode()).entrypoint.args == ("",)


def test_ten_thousand_steps_are_read_in_well_under_two_seconds() -> None:
    step = """  - run:
      command: [echo, '%d']
      env: {A: '1', B: x}
      user: nobody
"""
    text = HEAD + "from: scratch\nsteps:\n" + "".join(step % number for number in range(10_000))
    before = time.process_time()
    definition = loads(text.encode())
    assert time.process_time() - before < 2  # 0.6 s here
    assert len(definition.final.steps) == 10_000


def test_two_hundred_stages_and_no_more() -> None:
    def stages(count: int) -> str:
        rows = [f"  - {{name: s{n}, from: {f's{n - 1}' if n else 'scratch'}}}\n" for n in range(count)]
        return HEAD + "stages:\n" + "".join(rows)

    assert len(loads(stages(200).encode()).stages) == 200
    assert "more than 200 stages" in problems(stages(201))[0][3]


def test_a_network_with_its_policy() -> None:
    text = """\
apiVersion: aos.io/v1
kind: AgentPackage
metadata: {name: it, version: 1.0.0}
from: scratch
network:
  egress: [allow 203.0.113.0/24 tcp 443, deny any udp, allow internet]
  ports: [8080, 53/udp]
  bandwidth: {up: 1M, down: 10M}
"""
    definition = loads(text.encode())
    assert definition.network == Network(
        "bridge",
        ("allow 203.0.113.0/24 tcp 443", "deny any udp", "allow internet"),
        ("8080", "53/udp"),
        Bandwidth("1M", "10M"),
    )
    assert Definition.from_json(json.loads(json.dumps(definition.to_json()))).network == definition.network
    for mode in ("network: bridge", "network: {mode: bridge}"):
        assert loads((text.partition("network:")[0] + mode).encode()).network == "bridge"
