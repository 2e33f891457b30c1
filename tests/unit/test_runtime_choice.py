"""Which runtime `auto` takes, and what it says when none is enough."""

from __future__ import annotations

import pytest

from aos.errors import FailedPrecondition, InvalidArgument
from aos.runtime.choice import Candidate, Needs, check_isolation, choose
from aos.runtime.protocol import Isolation, RuntimeInfo


def there(name: str, isolation: Isolation, *capabilities: str) -> Candidate:
    return Candidate(name, RuntimeInfo(name, "1", frozenset(capabilities), {}, isolation))


def missing(name: str) -> Candidate:
    return Candidate(name, None, FailedPrecondition(f"{name} is not installed", code="runtime-missing"))


OCI = there("oci", "namespaces", "exec")
GVISOR = there("gvisor", "kernel", "exec", "checkpoint")
KATA = there("kata", "vm", "exec")


@pytest.mark.parametrize(
    ("candidates", "needs", "name"),
    [
        ([OCI, GVISOR, KATA], Needs(), "oci"),
        ([KATA, GVISOR, OCI], Needs(), "oci"),
        ([OCI, GVISOR, KATA], Needs("kernel"), "gvisor"),
        ([OCI, missing("gvisor"), KATA], Needs("kernel"), "kata"),
        ([OCI, GVISOR, KATA], Needs("vm"), "kata"),
        ([OCI, GVISOR], Needs("none", frozenset({"checkpoint"})), "gvisor"),
        ([missing("oci"), GVISOR], Needs(), "gvisor"),
        ([there("containerd", "namespaces"), OCI], Needs(), "containerd"),
    ],
)
def test_the_lightest_that_is_enough(candidates: list[Candidate], needs: Needs, name: str) -> None:
    assert choose(candidates, needs).name == name


def test_what_was_passed_over_is_said_with_the_reason() -> None:
    chosen = choose([OCI, missing("gvisor"), KATA], Needs("kernel"))
    assert chosen.why == (
        "the lightest with kernel (oci: it isolates by namespaces, and kernel is asked for; "
        "gvisor: gvisor is not installed)"
    )


def test_none_is_enough() -> None:
    with pytest.raises(FailedPrecondition) as refused:
        choose([OCI, missing("gvisor")], Needs("kernel", frozenset({"checkpoint"})))
    assert refused.value.code == "runtime-unfit"
    assert "oci: it isolates by namespaces" in refused.value.message
    assert "gvisor is not installed" in refused.value.message


def test_an_unknown_isolation_names_those_that_there_are() -> None:
    with pytest.raises(InvalidArgument, match="no isolation is called 'vms'") as refused:
        check_isolation("vms", "[runtime] isolation")
    assert refused.value.code == "isolation-unknown"
    assert refused.value.hint == "from the weakest: none, namespaces, kernel, vm"
