"""The pod's init: its rules by the line, and how it hands sockets to sidecars. That the rules work is shown in tests/e2e on a real engine."""

import os
import socket
import threading
import uuid

import pytest

from devmesh.errors import DevmeshError
from devmesh.runtimes.docker.entry import end_with, is_gone
from devmesh.runtimes.docker.pod import Doorman, Rules, device_of_app, meet, set_rules

RULES = Rules("10.210.2.0/24", "240.240.0.0/16")


def test_a_command_line_says_the_same_rules_again():
    rules = Rules("10.0.0.0/24", "240.240.0.0/16", ("22",), ("3306", "5432"), ("10.9.0.0/16",), ("10.0.0.0/8",))
    assert Rules.parse(rules.arguments()) == rules
    assert Rules.parse(RULES.arguments()) == RULES


def chain(rules, name, version=4):
    return [line.removeprefix(f"-A {name} ") for line in rules.restore(version).splitlines() if line.startswith(f"-A {name} ")]


def test_inbound_goes_to_15006_except_what_is_reached_from_outside():
    assert chain(Rules("10.0.0.0/24", "240.240.0.0/16", exclude_inbound_ports=("22",)), "DEVMESH_IN") == [
        "-p tcp --dport 15021 -j RETURN",
        "-p tcp --dport 15090 -j RETURN",
        "-p tcp --dport 22 -j RETURN",
        "-p tcp -j REDIRECT --to-ports 15006",
    ]


def test_outbound_goes_to_15001_except_the_sidecars_own():
    assert chain(RULES, "DEVMESH_OUT") == [
        "-s 127.0.0.6/32 -o lo -j RETURN",
        "-o lo ! -d 127.0.0.1/32 -p tcp -m owner --uid-owner 1337 -j REDIRECT --to-ports 15006",
        "-m owner --uid-owner 1337 -j RETURN",
        "-o lo -j RETURN",
        "-d 10.210.2.0/24 -j RETURN",
        "-p tcp -j REDIRECT --to-ports 15001",
    ]


def test_names_are_asked_of_the_sidecar_before_the_engines_own_rules():
    asked = [line for line in RULES.restore(4).splitlines() if "15053" in line]
    assert asked == [
        f"-I OUTPUT 1 -d 127.0.0.11/32 -p {protocol} --dport 53 -m owner ! --uid-owner 1337 -j REDIRECT --to-ports 15053"
        for protocol in ("tcp", "udp")
    ]
    assert "15053" not in RULES.restore(6)


def test_a_kernel_without_nf_tables_is_an_error_in_iptables_own_words(tmp_path, monkeypatch):
    (tmp_path / "iptables-nft-restore").write_text("#!/bin/sh\necho 'nf_tables is not here' >&2\nexit 1\n")
    (tmp_path / "iptables-nft-restore").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(DevmeshError, match="cannot be set: iptables-nft-restore: nf_tables is not here"):
        set_rules(RULES)


def test_the_control_network_is_the_sidecars_alone():
    assert chain(RULES, "OUTPUT")[-1] == "-d 10.210.2.0/24 -m conntrack --ctstate NEW -m owner ! --uid-owner 1337 -j REJECT"
    assert chain(RULES, "INPUT")[-1] == "! -i lo -s 10.210.2.0/24 -m conntrack --ctstate NEW -j REJECT"


def test_ranges_that_are_included_leave_the_rest_alone_and_keep_the_services():
    rules = Rules(
        "10.0.0.0/24", "240.240.0.0/16", include_outbound_ranges=("10.8.0.0/16",), exclude_outbound_ranges=("10.8.1.0/24", "fd00::/8")
    )
    assert chain(rules, "DEVMESH_OUT")[-3:] == [
        "-d 10.8.1.0/24 -j RETURN",
        "-d 10.8.0.0/16 -p tcp -j REDIRECT --to-ports 15001",
        "-d 240.240.0.0/16 -p tcp -j REDIRECT --to-ports 15001",
    ]


def test_an_excluded_port_stays_the_sidecars_at_services_own_addresses_which_lead_nowhere_else():
    rules = Rules("10.0.0.0/24", "240.240.0.0/16", exclude_outbound_ports=("3306",))
    assert chain(rules, "DEVMESH_OUT")[-2:] == ["! -d 240.240.0.0/16 -p tcp --dport 3306 -j RETURN", "-p tcp -j REDIRECT --to-ports 15001"]
    assert "-p tcp --dport 3306 -j RETURN" in chain(rules, "DEVMESH_OUT", 6), "services have IPv4 addresses"


def test_nothing_is_intercepted_with_no_range_and_all_ports_excluded():
    rules = Rules("10.0.0.0/24", "240.240.0.0/16", exclude_inbound_ports=("*",), include_outbound_ranges=())
    assert "REDIRECT --to-ports 15001" not in rules.restore(4)
    assert not [line for line in chain(rules, "DEVMESH_IN") if "REDIRECT" in line]


def test_ipv6_is_intercepted_too_without_ipv4s_ranges():
    assert chain(RULES, "DEVMESH_OUT", 6) == [
        "-m owner --uid-owner 1337 -j RETURN",
        "-o lo -j RETURN",
        "-p tcp -j REDIRECT --to-ports 15001",
    ]
    assert "*filter" not in RULES.restore(6)


def interface(name, *addresses):
    return {"ifname": name, "addr_info": [{"local": address} for address in addresses]}


def test_calls_leave_by_the_users_network_wherever_the_control_network_is_in_the_list():
    found = [interface("lo", "127.0.0.1"), interface("eth1", "10.210.2.5"), interface("eth0", "10.210.0.2")]
    assert device_of_app(found, RULES.control) == "eth0"
    with pytest.raises(DevmeshError, match="on no network of the user's"):
        device_of_app(found[:2], RULES.control)


@pytest.fixture
def doorman():
    name = f"\0{uuid.uuid4()}"
    with socket.create_server(("127.0.0.1", 0)) as held:
        made = Doorman([held], name)
        made.name = name
        made.port = held.getsockname()[1]
        wake, stop = os.pipe()
        thread = threading.Thread(target=made.serve, args=(wake,))
        thread.start()
        made.stop = lambda: (os.write(stop, b"x"), thread.join())
        yield made
        if thread.is_alive():
            made.stop()
        made.close(0.1)
        os.close(wake)
        os.close(stop)


def test_a_restarted_sidecar_gets_the_same_listening_socket(doorman):
    first, sockets = meet(60, name=doorman.name)
    sockets[0].close()
    first.close()
    with socket.create_connection(("127.0.0.1", doorman.port)) as caller:
        second, sockets = meet(60, name=doorman.name)
        accepted = sockets[0].accept()[0]
        assert accepted.getpeername() == caller.getsockname(), "who came meanwhile waits in the backlog"
        for sock in (accepted, second, *sockets):
            sock.close()


def test_the_sidecar_is_told_when_the_pod_goes_and_the_pod_waits_for_it(doorman):
    pod, sockets = meet(60, name=doorman.name)
    doorman.stop()
    gone = threading.Event()
    thread = threading.Thread(target=lambda: (doorman.close(10), gone.set()))
    thread.start()
    assert pod.recv(1) == b"", "an end of file"
    assert not gone.is_set(), "the sidecar still drains"
    pod.close()
    thread.join()
    assert gone.is_set()
    sockets[0].close()


def test_a_pod_that_ends_is_drained_for_and_one_that_was_killed_is_followed_at_once():
    ours, pod = socket.socketpair()
    with ours:
        with pod:
            pod.shutdown(socket.SHUT_WR)
            assert ours.recv(1) == b""
            assert not is_gone(ours), "it waits for us"
        assert is_gone(ours)
        left = []
        end_with(ours, left.append)
        assert left == [1]


def test_a_pod_that_never_comes_is_an_error():
    times = iter([0.0, 31.0])
    with pytest.raises(DevmeshError, match="set no rules within 30 s"):
        meet(30, clock=lambda: next(times), name=f"\0{uuid.uuid4()}")
