"""The error taxonomy: one table of kinds, exit codes and JSON-RPC codes; errors survive the wire."""

from __future__ import annotations

import json

import pytest

from aos.errors import KINDS, AosError, Conflict, FailedPrecondition, Internal, NotFound, from_wire


def test_exit_codes_and_rpc_codes_are_distinct_and_stable() -> None:
    assert {kind: error.exit_code for kind, error in KINDS.items()} == {
        "Internal": 1,
        "InvalidArgument": 2,
        "NotFound": 3,
        "AlreadyExists": 4,
        "FailedPrecondition": 5,
        "PermissionDenied": 6,
        "Unauthenticated": 7,
        "ResourceExhausted": 8,
        "Conflict": 9,
        "Aborted": 10,
        "Unavailable": 11,
        "NotImplemented": 12,
        "DataLoss": 13,
    }
    assert len({error.rpc_code for error in KINDS.values()}) == len(KINDS)
    assert all(-32099 <= error.rpc_code <= -32000 for error in KINDS.values())  # JSON-RPC's range for servers


def test_every_kind_is_in_the_table_under_its_own_name() -> None:
    subclasses = {error for error in AosError.__subclasses__() if error.__module__ == "aos.errors"}
    assert set(KINDS.values()) == subclasses
    assert all(error.__name__ == kind == error.kind for kind, error in KINDS.items())


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_an_error_survives_the_wire(kind: type[AosError]) -> None:
    sent = kind("no such thing", code="thing-not-found", hint="make it", name="x", count=2)
    received = from_wire(json.loads(json.dumps(sent.to_wire())))
    assert type(received) is kind
    assert (received.message, received.code, received.hint) == ("no such thing", "thing-not-found", "make it")
    assert received.subject == {"name": "x", "count": 2}
    assert str(received) == "no such thing"


def test_what_is_not_said_is_not_sent() -> None:
    assert NotFound("gone").to_wire() == {
        "code": -32002,
        "message": "gone",
        "data": {"kind": "NotFound", "code": "not-found"},
    }


@pytest.mark.parametrize(
    "wire",
    [
        {},
        {"message": "m"},
        {"code": -32700, "message": "m", "data": None},
        {"message": "m", "data": {"kind": "Invented"}},
        {"message": "m", "data": {"kind": 3, "hint": "", "subject": [1]}},
    ],
)
def test_a_strange_answer_becomes_internal_and_never_raises(wire: dict[str, object]) -> None:
    error = from_wire(wire)
    assert type(error) is Internal
    assert (error.code, error.hint, error.subject) == ("internal", None, {})


def test_the_default_code_is_the_kind_in_kebab_case() -> None:
    assert Conflict("c").code == "conflict"
    assert FailedPrecondition("f").code == "failed-precondition"
    assert AosError("a").exit_code == 1
