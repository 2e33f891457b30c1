"""Decoding calls: whatever comes, it is a request or politely refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aos.kernel.syscalls import CALLS, BadRequest, RunAgent, decode_params, decode_request


def line(**fields: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, **fields}).encode()


@pytest.mark.parametrize(
    ("data", "rpc_code", "code"),
    [
        (b"", -32700, "request-not-json"),
        (b"{", -32700, "request-not-json"),
        (b"\xff\xfe", -32700, "request-not-json"),
        (b"[]", -32600, "request-invalid"),
        (b"[" * 100_000, -32600, "request-invalid"),
        (b'{"method": "node.status"}', -32600, "request-invalid"),
        (b'{"jsonrpc": "1.0", "method": "node.status"}', -32600, "request-invalid"),
        (line(method="node.status", extra=1), -32600, "request-invalid"),
        (line(method="no.such"), -32601, "method-unknown"),
    ],
)
def test_what_is_no_request(data: bytes, rpc_code: int, code: str) -> None:
    with pytest.raises(BadRequest) as refused:
        decode_request(data)
    assert (refused.value.rpc_code, refused.value.code) in [(rpc_code, code), (-32700, "request-not-json")]


@pytest.mark.parametrize(
    ("method", "params", "words"),
    [
        ("agent.wait", {}, "agent"),
        ("agent.wait", {"agent": 1}, "str"),
        ("agent.wait", {"agent": "a", "agnet": "b"}, "agnet"),
        ("agent.wait", [], "object"),
        ("agent.run", {"reference": "a", "mounts": [{"source": "/x"}]}, "target"),
        ("node.hello", {}, "protocol"),
        ("events.watch", {"since": 1 << 63}, "since"),
        ("events.watch", {"since": -1}, "since"),
    ],
)
def test_wrong_parameters_are_named(method: str, params: object, words: str) -> None:
    with pytest.raises(BadRequest) as refused:
        decode_params(decode_request(line(method=method, params=params)))
    assert refused.value.rpc_code == -32602
    assert words in refused.value.message


def test_text_that_is_not_utf_8() -> None:
    data = b'{"jsonrpc":"2.0","id":1,"method":"agent.wait","params":{"agent":"\xff"}}'
    with pytest.raises(BadRequest) as refused:
        decode_params(decode_request(data))
    assert "UTF-8" in refused.value.message


def test_what_is_unknown_is_refused_under_its_own_number() -> None:
    with pytest.raises(BadRequest) as refused:
        decode_request(line(method="no.such"))
    assert refused.value.request_id == 1


def test_parameters_have_defaults() -> None:
    call = decode_params(decode_request(line(method="agent.run", params={"reference": "it:1"})))
    assert isinstance(call, RunAgent)
    assert (call.args, call.entrypoint, call.env, call.attach) == (None, None, {}, False)


@given(st.binary(max_size=200))
def test_arbitrary_bytes(data: bytes) -> None:
    with pytest.raises(BadRequest):
        decode_request(data)


@given(st.sampled_from(sorted(CALLS)), st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3))
def test_arbitrary_parameters(method: str, params: dict[str, str]) -> None:
    try:
        decode_params(decode_request(line(method=method, params=params)))
    except BadRequest as refused:
        assert refused.code == "params-invalid"
