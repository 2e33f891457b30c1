"""The words of a network: what they parse to, what is refused and why, and what a policy means."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aos.errors import AosError, InvalidArgument, NotImplemented
from aos.runtime.network.asked import NetworkWords, network_spec
from aos.runtime.network.policy import PROTECTED, decide, is_protected, lines
from aos.runtime.network.rules import parse_egress, parse_port, parse_rate, port_text, rule_text
from aos.runtime.spec import INTERNET, EgressRule, NetworkSpec, Port

ADDRESSES = st.integers(0, 2**32 - 1).map(IPv4Address)
NETWORKS = st.builds(
    lambda address, length: IPv4Network((address, length), strict=False), ADDRESSES, st.integers(0, 32)
)
RANGES = st.tuples(st.integers(1, 65535), st.integers(1, 65535)).map(lambda pair: (min(pair), max(pair)))
RULES = st.one_of(
    st.builds(EgressRule, st.booleans(), NETWORKS.map(str), st.sampled_from(["", "icmp"])),
    st.builds(
        EgressRule,
        st.booleans(),
        NETWORKS.map(str),
        st.sampled_from(["tcp", "udp"]),
        st.lists(RANGES, max_size=3).map(tuple),
    ),
)
PORTS = st.builds(
    Port,
    st.integers(1, 65535),
    st.sampled_from(["tcp", "udp"]),
    st.integers(0, 65535),
    st.one_of(st.just(""), ADDRESSES.map(str).filter(lambda text: text != "0.0.0.0")),
)


@given(RULES)
def test_a_rule_is_what_its_words_say(rule: EgressRule) -> None:
    assert parse_egress([rule_text(rule), "deny any"])[0] == rule


@given(PORTS)
def test_a_port_is_what_its_words_say(port: Port) -> None:
    assert parse_port(port_text(port)) == port


@given(st.text(max_size=40))
def test_no_text_makes_a_traceback(text: str) -> None:
    for parse in (parse_port, parse_rate, lambda word: parse_egress([word, word])):
        try:
            parse(text)
        except AosError:
            continue


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("allow", "is no rule"),
        ("permit any", "is no rule"),
        ("allow any sctp", "no protocol 'sctp'"),
        ("allow any icmp 8", "icmp has none"),
        ("allow 203.0.113.5/24", "has host bits set"),
        ("allow 1.2.3", "no IPv4 network"),
        ("allow any tcp 0", "no ports '0'"),
        ("allow any tcp 90-80", "no ports '90-80'"),
        ("allow any tcp 70000", "no ports '70000'"),
        ("allow any tcp 80,", "no ports ''"),
        ("allow any " + "x" * 1000, "is no rule"),
    ],
)
def test_a_wrong_rule_says_why(text: str, why: str) -> None:
    with pytest.raises(InvalidArgument, match="egress") as caught:
        parse_egress([text, "deny any"])
    assert why in caught.value.message
    assert caught.value.code == "egress-invalid"


@pytest.mark.parametrize("to", ["example.com", "2001:db8::/32", "fd00:ec2::254"])
def test_names_and_ipv6_come_later_and_are_not_ignored(to: str) -> None:
    with pytest.raises(NotImplemented):
        parse_egress([f"allow {to}"])


@pytest.mark.parametrize(
    "text", ["", "0", "65536", "80:", "1.2.3:80:80", "1.2.3.4:80", "80/sctp", "a:b", "8080:0"]
)
def test_a_wrong_port_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_port(text)
    assert caught.value.code == "port-invalid"


def test_ports_in_the_forms_that_people_know() -> None:
    assert parse_port("80") == Port(80)
    assert parse_port("8080:80") == Port(80, "tcp", 8080)
    assert parse_port("127.0.0.1:5353:53/udp") == Port(53, "udp", 5353, "127.0.0.1")
    assert parse_port("127.0.0.1::80") == Port(80, "tcp", 0, "127.0.0.1")
    assert parse_port("0.0.0.0:8080:80") == Port(80, "tcp", 8080)


def test_rates() -> None:
    assert [parse_rate(text) for text in ("500k", "10M", "1Gbit", "8000")] == [
        500_000,
        10_000_000,
        10**9,
        8000,
    ]
    for text in ("", "fast", "7999", "-1k", "10MB", "1T"):
        with pytest.raises(InvalidArgument):
            parse_rate(text)


@given(st.lists(RULES, max_size=6), ADDRESSES, st.sampled_from(["tcp", "udp", "icmp"]), st.integers(1, 65535))
def test_the_first_rule_that_matches_decides(
    rules: list[EgressRule], address: IPv4Address, protocol: str, port: int
) -> None:
    def matches(rule: EgressRule) -> bool:
        network = IPv4Network(rule.to)
        if address not in network or rule.protocol not in ("", protocol):
            return False
        if rule.ports and not any(low <= port <= high for low, high in rule.ports):
            return False
        named = any(network.subnet_of(one) for one in PROTECTED)
        return not rule.allow or named or not is_protected(address)

    expected = next((rule.allow for rule in rules if matches(rule)), False)
    assert decide(lines(rules), address, protocol, port) == expected


@given(ADDRESSES, st.booleans())
def test_the_internet_is_what_is_not_protected(address: IPv4Address, own: bool) -> None:
    assert decide(lines(INTERNET), address, "tcp", 443, own=own) == (not own and not is_protected(address))


def test_resolvers_can_be_asked_for_names_and_for_nothing_else() -> None:
    resolver = IPv4Address("10.0.0.2")
    allowed = lines(INTERNET, [resolver])
    assert decide(allowed, resolver, "udp", 53)
    assert not decide(allowed, resolver, "tcp", 80)
    assert not decide(lines((), [resolver]), resolver, "udp", 53), "none is none"
    assert not decide(lines(parse_egress(["deny any udp 53", "allow any"]), [resolver]), resolver, "udp", 53)


def test_protected_networks_are_in_order_and_apart() -> None:
    """As the set in the kernel wants them: none in another, none touching the next."""
    for one, after in pairwise(PROTECTED):
        assert int(one.broadcast_address) + 1 < int(after.network_address)


def test_what_a_package_says_is_changed_by_what_is_asked_for() -> None:
    package = {
        "mode": "bridge",
        "egress": ["allow 203.0.113.0/24"],
        "ports": ["8080", "53/udp"],
        "bandwidth": {"up": "1M"},
    }
    spec = network_spec(package, (), NetworkWords())
    assert spec.egress == (EgressRule(True, "203.0.113.0/24"),)
    assert spec.ports == ()
    assert (spec.bandwidth.up, spec.bandwidth.down) == (1_000_000, None)
    spec = network_spec(
        package, ("9090/tcp",), NetworkWords(publish=("80:8080",), publish_all=True, egress=("none",))
    )
    assert spec.ports == (Port(8080, "tcp", 80), Port(53, "udp"), Port(9090))
    assert spec.egress == ()
    assert network_spec(package, (), NetworkWords(mode="none")) == NetworkSpec("none")
    assert network_spec("none", (), NetworkWords(publish=("80",))).mode == "bridge"
    assert network_spec(None, (), NetworkWords(mode="agent:web")) == NetworkSpec("agent", sandbox="web")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (NetworkWords(mode="macvlan"), "network-unknown"),
        (NetworkWords(mode="agent"), "network-unknown"),
        (NetworkWords(mode="bridge:x"), "network-unknown"),
        (NetworkWords(mode="none", publish=("80",)), "network-conflict"),
        (NetworkWords(mode="host", egress=("none",)), "network-conflict"),
    ],
)
def test_what_does_not_go_together_is_refused(words: NetworkWords, code: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        network_spec(None, (), words)
    assert caught.value.code == code
