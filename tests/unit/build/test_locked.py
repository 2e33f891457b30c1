"""Whether a lock fits an Agentfile, and what is said when it does not."""

from __future__ import annotations

import pytest

from aos.agentfile.definition import Definition, Install, Metadata, Run, Stage
from aos.agentfile.lock import Lock, LockedStep
from aos.build.lock.locked import Honour, StepLock, Wanted, drifted, match
from aos.build.lock.locking import Upgrade, changes
from aos.errors import FailedPrecondition

A, B = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
DEFINITION = Definition(
    Metadata("agent", "1.0.0"),
    (
        Stage("tools", "base:1", steps=(Install("apt", ("bc",)),)),
        Stage("", "tools", steps=(Install("pip", ("x",)), Run(()))),
    ),
)
APT = LockedStep("tools", "install apt", ("bc",), (f"bc 1 amd64 {A}",), "l:5")
PIP = LockedStep("", "install pip", ("x",), (f"x 1 x-1-py3-none-any.whl {B}",), "l:9")
WANTS = [Wanted(("tools", 0), "install apt", ("bc",)), Wanted(("", 0), "install pip", ("x",))]


def _lock(*steps: LockedStep, agent: str = "agent", platform: str = "linux/amd64") -> Lock:
    return Lock(agent, platform, (("base:1", A),), steps)


def _drift(lock: Lock, wants: list[Wanted] = WANTS, bases: dict[str, str] | None = None) -> list[str]:
    return drifted(
        lock,
        wants,
        {"base:1": A} if bases is None else bases,
        definition=DEFINITION,
        stages={"tools", ""},
        platform="linux/amd64",
    )


def test_a_lock_that_fits_says_nothing_whatever_the_order() -> None:
    assert _drift(_lock(APT, PIP)) == _drift(_lock(PIP, APT)) == []
    assert set(match(WANTS, _lock(PIP, APT))) == {("tools", 0), ("", 0)}


def test_steps_may_be_added_and_moved_around_a_locked_one() -> None:
    moved = [WANTS[0], Wanted(("", 7), "install pip", ("x",))]
    assert _drift(_lock(APT, PIP), moved) == []


def test_two_steps_that_ask_for_the_same_are_two_entries() -> None:
    twice = [*WANTS, Wanted(("", 1), "install pip", ("x",))]
    assert _drift(_lock(APT, PIP), twice) == ["install pip is not in the lock"]
    assert _drift(_lock(APT, PIP, PIP), twice) == []


@pytest.mark.parametrize(
    ("wants", "bases", "told"),
    [
        (
            [WANTS[0], Wanted(("", 0), "install pip", ("x", "y"))],
            None,
            ["install pip asks for 'y', which is not in the lock"],
        ),
        (
            [WANTS[0], Wanted(("", 0), "install pip", ())],
            None,
            ["install pip does not ask for 'x' any more (l:9)"],
        ),
        ([WANTS[1]], None, ["[tools] install apt (l:5) is not in the Agentfile any more"]),
        (WANTS, {"base:1": B}, [f"the base 'base:1' is {B} now, and {A} in the lock"]),
        (WANTS, {"base:1": A, "other:1": B}, ["the base 'other:1' is not in the lock"]),
        (WANTS, {"base:1": ""}, []),
    ],
)
def test_drift_is_named(wants: list[Wanted], bases: dict[str, str] | None, told: list[str]) -> None:
    assert _drift(_lock(APT, PIP), wants, bases) == told


def test_a_base_that_nothing_names_is_drift() -> None:
    lock = Lock("agent", "linux/amd64", (("base:1", A), ("old:1", B)), (APT, PIP))
    assert _drift(lock) == ["the base 'old:1' is not in the Agentfile any more"]
    assert _drift(_lock(APT, PIP), bases={}) == []


def test_order_of_what_is_asked_for_counts() -> None:
    wants = [WANTS[0], Wanted(("", 0), "install pip", ("y", "x"))]
    entry = LockedStep("", "install pip", ("x", "y"), (), "l:9")
    assert _drift(_lock(APT, entry), wants) == ["install pip asks in another order than in the lock (l:9)"]


def test_a_build_of_fewer_stages_judges_only_these() -> None:
    said = drifted(
        _lock(APT, PIP),
        [WANTS[0]],
        {"base:1": A},
        definition=DEFINITION,
        stages={"tools"},
        platform="linux/amd64",
    )
    assert said == []


@pytest.mark.parametrize(
    ("lock", "code"),
    [
        (_lock(APT, PIP, agent="other"), "lock-foreign"),
        (_lock(APT, PIP, platform="linux/arm64"), "lock-platform"),
    ],
)
def test_a_lock_of_something_else_is_refused_as_a_whole(lock: Lock, code: str) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        _drift(lock)
    assert caught.value.code == code


def test_a_build_is_refused_with_all_that_drifted() -> None:
    with pytest.raises(FailedPrecondition) as caught:
        Honour(_lock(APT)).check(DEFINITION, {"tools", ""}, WANTS, {"base:1": B}, "linux/amd64")
    assert caught.value.code == "lock-drift"
    assert "base:1" in caught.value.message
    assert "install pip is not in the lock" in caught.value.message


def test_pins_stand_for_requirement_files_in_keys() -> None:
    inputs = {"requirements": {"r.txt": "1"}, "tools": {"uv": "1"}}
    found = StepLock(PIP.pins).components(inputs)
    assert found == {"tools": {"uv": "1"}, "lock": {"x": PIP.pins[0]}}
    assert StepLock(None, occasion="1").components(inputs) != StepLock(None, occasion="2").components(inputs)
    both = StepLock((f"libc6 1 amd64 {A}", f"libc6 1 i386 {B}")).components({})["lock"]
    assert isinstance(both, dict)
    assert len(both) == 2


def test_an_upgrade_lets_go_of_what_it_names() -> None:
    assert Upgrade(names=frozenset({"x"})).lets_go(PIP)
    assert not Upgrade(names=frozenset({"x"})).lets_go(APT)
    assert not Upgrade().lets_go(PIP)
    assert Upgrade(everything=True).lets_go(APT)
    debian = LockedStep("", "plugin debian", (), APT.pins)
    whole = Upgrade(names=frozenset({"debian"}))
    assert whole.lets_go(debian)
    assert not whole.keeps(debian, APT.pins[0])
    assert whole.keeps(APT, APT.pins[0])


def test_changes_are_told_as_people_read_them() -> None:
    newer = LockedStep(
        "", "install pip", ("x",), (f"x 2 x-2-py3-none-any.whl {A}", f"y 1 y-1-py3-none-any.whl {A}")
    )
    assert changes(_lock(APT, PIP), _lock(newer)) == [
        "install pip: x 1 -> 2",
        "install pip: y 1",
        "[tools] install apt: bc 1 removed",
    ]
