"""What an agent asks for beyond its image: secrets, devices, a disk."""

from __future__ import annotations

import pytest

from aos.agentfile import AgentfileError, loads
from aos.agentfile.definition import Definition, Secret

HEAD = "apiVersion: aos.io/v1\nkind: AgentPackage\nmetadata: {name: x, version: 1.0.0}\nfrom: scratch\n"


def _read(text: str) -> Definition:
    return loads((HEAD + text).encode())


def test_secrets() -> None:
    definition = _read(
        "secrets: [token, {name: KEY, env: true, required: false}, {name: rc, target: /root/.rc}]\n"
    )
    assert definition.secrets == (
        Secret("token"),
        Secret("KEY", env=True, required=False),
        Secret("rc", "/root/.rc"),
    )
    again = Definition.from_json(definition.to_json())
    assert (again.secrets, again.resources) == (definition.secrets, definition.resources)


@pytest.mark.parametrize(
    ("text", "gpu"),
    [
        ("2", ("2",)),
        ("nvidia.com/gpu=all", ("nvidia.com/gpu=all",)),
        ("[nvidia.com/gpu=0, amd.com/gpu=x1]", ("nvidia.com/gpu=0", "amd.com/gpu=x1")),
    ],
)
def test_devices(text: str, gpu: tuple[str, ...]) -> None:
    definition = _read(f"resources: {{gpu: {text}, disk: 1Gi}}\n")
    assert definition.resources.gpu == gpu
    assert definition.resources.disk == 1 << 30
    again = Definition.from_json(definition.to_json())
    assert (again.secrets, again.resources) == (definition.secrets, definition.resources)


@pytest.mark.parametrize(
    "text",
    [
        *("secrets: [a, a]", "secrets: [{target: /x}]", "secrets: [a/b]", "secrets: {a: b}"),
        *(
            "secrets: [{name: a, target: x}]",
            "secrets: [{name: a.b, env: true}]",
            "secrets: [{name: a, env: yes please}]",
        ),
        *(
            "resources: {gpu: 0}",
            "resources: {gpu: nvidia}",
            "resources: {gpu: [1]}",
            "resources: {disk: much}",
        ),
    ],
)
def test_mistakes(text: str) -> None:
    with pytest.raises(AgentfileError):
        _read(text + "\n")
