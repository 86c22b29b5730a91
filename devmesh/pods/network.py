"""A pod's network: lo with the pod's address, a default route on lo, the REDIRECT rules, and the sockets they lead to.

Two tools do it, `ip` and `iptables-restore` (one run each): they are on every machine that can have the rules at all.
"""

from __future__ import annotations

import errno
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

OUTBOUND_PORT, DNS_PORT = 15001, 15053
# Where a sidecar's connections to its own app come from in every runtime (Istio's InboundPassthroughBindIpv4).
INBOUND_SOURCE = "127.0.0.6"
# Where all workloads of all meshes live; a call to another workload's own address must not end at the caller's loopback.
WORKLOADS = "127.7.0.0/16"
BACKLOG = 1024
IPV6_PREFIX = "fd7f:64:6d::"  # a unique local address (RFC 4193), for a source address of calls over IPv6
Tool = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PodSocket:
    """One socket made in the pod and served by its sidecar."""

    role: str  # virtual_outbound | dns
    sock: socket.socket

    def to_json(self) -> dict[str, object]:
        address, port = self.sock.getsockname()[:2]
        return {"role": self.role, "address": address, "port": port}


def has_ipv6() -> bool:
    """False on a machine without IPv6, or with it disabled."""
    try:
        return Path("/proc/sys/net/ipv6/conf/lo/disable_ipv6").read_text().strip() == "0"
    except OSError:
        return False


def link_commands(address: str, *, ipv6: bool) -> str:
    """For `ip -batch -`."""
    lines = ["link set lo up", f"addr add {address}/32 dev lo", f"route add default dev lo src {address}"]
    if ipv6:
        suffix = ":".join(address.split(".")[2:])
        lines += [f"addr add {IPV6_PREFIX}{suffix}/128 dev lo nodad", "route add ::/0 dev lo"]
    return "\n".join(lines) + "\n"


def rules(address: str) -> str:
    """For `iptables-restore`. What is neither TCP nor DNS cannot leave a pod: refused at once, since a lost packet would be waited for."""
    return "\n".join(
        [
            "*nat",
            f"-A OUTPUT -p udp --dport 53 -j REDIRECT --to-ports {DNS_PORT}",
            f"-A OUTPUT -p tcp --dport 53 -j REDIRECT --to-ports {DNS_PORT}",
            f"-A OUTPUT -d {address}/32 -j RETURN",
            f"-A OUTPUT -p tcp -d {WORKLOADS} -j REDIRECT --to-ports {OUTBOUND_PORT}",
            "-A OUTPUT -d 127.0.0.0/8 -j RETURN",
            f"-A OUTPUT -p tcp -j REDIRECT --to-ports {OUTBOUND_PORT}",
            "COMMIT",
            "*filter",
            "-A OUTPUT ! -p tcp ! -d 127.0.0.0/8 -j REJECT",
            "COMMIT",
            "",
        ]
    )


def rules_ipv6() -> str:
    return "\n".join(
        [
            "*nat",
            f"-A OUTPUT -p udp --dport 53 -j REDIRECT --to-ports {DNS_PORT}",
            f"-A OUTPUT -p tcp --dport 53 -j REDIRECT --to-ports {DNS_PORT}",
            f"-A OUTPUT -d {IPV6_PREFIX}/48 -j RETURN",
            "-A OUTPUT -d ::1/128 -j RETURN",
            f"-A OUTPUT -p tcp -j REDIRECT --to-ports {OUTBOUND_PORT}",
            "COMMIT",
            "*filter",
            "-A OUTPUT -p udp ! -d ::1/128 -j REJECT",
            "COMMIT",
            "",
        ]
    )


def run(tool: Tool, text: str) -> None:
    """Feed a tool its standard input. Raises OSError with what it said."""
    done = subprocess.run(tool, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(errno.EPERM, f"{' '.join(tool)}: {(done.stderr or done.stdout).strip()}")


def set_up(address: str) -> bool:
    """Make the network of the namespace we are in; True when it has IPv6. Raises OSError."""
    ipv6 = has_ipv6()
    run(("ip", "-batch", "-"), link_commands(address, ipv6=ipv6))
    run(("iptables-restore", "--noflush"), rules(address))
    if ipv6:
        run(("ip6tables-restore", "--noflush"), rules_ipv6())
    # An app may bind 80 as in a container; the namespace's own setting (ip-sysctl.rst).
    Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").write_text("0")
    return ipv6


def sockets(*, ipv6: bool) -> list[PodSocket]:
    """Everything the rules lead to. On every address, so that an app that wants the port is told, as beside Istio's sidecar."""
    out: list[PodSocket] = []
    families = [(socket.AF_INET, "0.0.0.0", "127.0.0.1"), (socket.AF_INET6, "::", "::1")]
    for family, everywhere, loopback in families[: 2 if ipv6 else 1]:
        out.append(PodSocket("virtual_outbound", _listening(family, everywhere, OUTBOUND_PORT)))
        out.append(PodSocket("dns", _listening(family, loopback, DNS_PORT)))
        datagrams = socket.socket(family, socket.SOCK_DGRAM)
        # Where REDIRECT sends what a process sends: an answer from another source would not be taken back to the name server it was asked of.
        datagrams.bind((loopback, DNS_PORT))
        out.append(PodSocket("dns", datagrams))
    return out


def _listening(family: int, address: str, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _only_ipv6(sock)
    sock.bind((address, port))
    sock.listen(BACKLOG)
    return sock


def _only_ipv6(sock: socket.socket) -> None:
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
