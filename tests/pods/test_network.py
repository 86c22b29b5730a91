"""The rules and commands as text; tests/pods/test_init.py sees them work."""

import subprocess
import sys

import pytest

from devmesh.pods.network import link_commands, rules, rules_ipv6, run
from tests.support.require import pods


def test_a_machine_without_ipv6_gets_no_ipv6_address_or_route():
    assert "fd7f" not in link_commands("127.7.0.3", ipv6=False)
    assert "::/0" not in link_commands("127.7.0.3", ipv6=False)
    assert "addr add fd7f:64:6d::0:3/128 dev lo nodad" in link_commands("127.7.0.3", ipv6=True)


def test_calls_have_the_pods_address_as_source():
    """Every address of lo is of host scope, which the kernel would not choose by itself: the source would be 0.0.0.0."""
    assert "route add default dev lo src 127.7.0.3" in link_commands("127.7.0.3", ipv6=False)


def test_ones_own_address_stays_in_the_pod_and_every_other_workloads_address_leaves_it():
    lines = rules("127.7.0.3").splitlines()
    own = lines.index("-A OUTPUT -d 127.7.0.3/32 -j RETURN")
    others = lines.index("-A OUTPUT -p tcp -d 127.7.0.0/16 -j REDIRECT --to-ports 15001")
    loopback = lines.index("-A OUTPUT -d 127.0.0.0/8 -j RETURN")
    assert own < others < loopback


def test_name_servers_come_before_everything_else_also_on_loopback():
    for text in (rules("127.7.0.3"), rules_ipv6()):
        assert text.splitlines()[1:3] == [
            "-A OUTPUT -p udp --dport 53 -j REDIRECT --to-ports 15053",
            "-A OUTPUT -p tcp --dport 53 -j REDIRECT --to-ports 15053",
        ]


def test_a_tool_that_fails_is_named_with_what_it_said():
    with pytest.raises(OSError, match=r"sh -c cat >&2; exit 3: no such table"):
        run(("sh", "-c", "cat >&2; exit 3"), "no such table")


def test_where_the_kernel_has_no_ipv6_a_pod_is_made_without_and_its_calls_are_redirected():
    """As with the boot parameter ipv6.disable=1: the kernel's folder of it is not there."""
    pods()
    script = """
import socket
from devmesh.pods.network import has_ipv6, set_up, sockets
from devmesh.sidecar.original_dst import original_destination
assert not has_ipv6()
assert set_up("127.7.0.3") is False
made = {one.role: one.sock for one in sockets(ipv6=False) if one.sock.type == socket.SOCK_STREAM}
calling = socket.create_connection(("203.0.113.7", 443), 5)
print(original_destination(made["virtual_outbound"].accept()[0]))
"""
    around = (
        "unshare",
        "--user",
        "--map-root-user",
        "--net",
        "--mount",
        "sh",
        "-c",
        'mount -t tmpfs none /proc/sys/net/ipv6 && exec "$@"',
        "sh",
    )
    done = subprocess.run([*around, sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == "('203.0.113.7', 443)\n", done.stderr
