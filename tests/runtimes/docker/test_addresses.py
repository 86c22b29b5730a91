"""Subnets and addresses that are decided before anything starts."""

from contextlib import ExitStack
from ipaddress import IPv4Address, IPv4Network

import pytest

from devmesh.errors import DevmeshError
from devmesh.runtimes.docker.addresses import POOL, Addresses, Subnet, choose_subnets, claim_subnet, host_routes

NET = IPv4Network("10.210.0.0/24")


def test_subnets_are_the_first_that_nobody_has():
    found = choose_subnets(["a", "b"], [IPv4Network("10.210.0.0/23")], 5)
    assert [str(one.network) for one in found.values()] == ["10.210.2.0/24", "10.210.3.0/24"]


def test_a_range_that_cannot_be_claimed_is_left_to_whoever_did():
    asked: list[str] = []
    found = choose_subnets(["a"], [NET], 5, lambda one: bool(asked.append(str(one))) or len(asked) == 2)
    assert (str(found["a"].network), asked) == ("10.210.2.0/24", ["10.210.1.0/24", "10.210.2.0/24"])


def test_a_claimed_range_is_nobody_elses_not_even_in_part_until_the_claims_end():
    large, small = IPv4Network("198.18.4.0/22"), IPv4Network("198.18.6.0/24")  # RFC 2544: not of the pool, whose meshes may be up
    with ExitStack() as ours, ExitStack() as theirs:
        assert claim_subnet(ours, small)
        assert not claim_subnet(theirs, small)
        assert not claim_subnet(theirs, large)
        assert claim_subnet(theirs, IPv4Network("198.18.4.0/24")), "what could not be had whole is not held in part"
        theirs.close()
        ours.close()
        assert claim_subnet(theirs, large)


def test_many_containers_get_a_larger_subnet():
    assert choose_subnets(["a"], [], 200)["a"].network.prefixlen == 22


def test_a_pool_that_is_taken_is_an_error_with_a_way_out():
    with pytest.raises(DevmeshError, match="no free subnet") as caught:
        choose_subnets(["a"], [POOL], 1)
    assert "prune" in (caught.value.hint or "")


def test_fixed_addresses_are_below_what_the_engine_gives_out_and_repeat():
    addresses = Addresses({"n": Subnet(NET)})
    assert [addresses.of("n", name) for name in ("a", "b", "a")] == ["10.210.0.2", "10.210.0.3", "10.210.0.2"]
    assert IPv4Address(addresses.of("n", "c")) not in Subnet(NET).dynamic


def test_in_others_ranges_addresses_come_from_above_and_avoid_what_is_used():
    subnet = Subnet(NET, ours=False, used=frozenset({IPv4Address("10.210.0.253")}), gateway=IPv4Address("10.210.0.254"))
    addresses = Addresses({"n": subnet})
    assert [addresses.of("n", name) for name in ("a", "b")] == ["10.210.0.252", "10.210.0.251"]


def test_a_full_network_names_itself_and_who_is_left_out():
    addresses = Addresses({"n": Subnet(IPv4Network("10.0.0.0/29"))})
    addresses.of("n", "a")
    addresses.of("n", "b")
    with pytest.raises(DevmeshError, match=r"network n \(10.0.0.0/29\) has no address left for c"):
        addresses.of("n", "c")


def test_the_machines_routes_are_read_except_the_default(tmp_path):
    table = tmp_path / "route"
    table.write_text(
        "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"
        "eth0 00000000 0100000A 0003 0 0 0 00000000 0 0 0\neth0 0000D20A 00000000 0001 0 0 0 00FFFFFF 0 0 0\n"
    )
    assert host_routes(table) == [NET]
    assert host_routes(tmp_path / "none") == []
