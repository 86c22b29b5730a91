"""A pod's init, PID 1 of the container that owns a workload's network namespace: sets the REDIRECT rules once, gives up its rights, waits.

The rules are Istio's (tools/istio-iptables): outbound TCP to 15001, inbound to 15006, questions for names to 15053, nothing of the sidecar's own uid.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import ipaddress
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from devmesh.errors import DevmeshError
from devmesh.pods.network import INBOUND_SOURCE

SIDECAR_UID = 1337
OUTBOUND, INBOUND, NAMES = 15001, 15006, 15053
ENGINE_RESOLVER = "127.0.0.11"  # in every container on a network that somebody made
# Reached from outside as they are: readiness and Prometheus (istio-iptables excludes the same).
OWN_INBOUND = (15021, 15090)
# Abstract: such names belong to the network namespace, which the sidecar shares, and not to a file system, which it does not.
READY_SOCKET = "\0devmesh-pod"
SOCKETS = (("virtual_outbound", OUTBOUND), ("virtual_inbound", INBOUND), ("dns", NAMES))
BACKLOG, MAX_SOCKETS = 1024, 8
NEEDS = "the engine's kernel must have NAT for iptables; devmesh up --runtime local needs no engine"
LOOK_AGAIN_SECONDS = 0.02  # an abstract socket has no event for its birth
# One more than a sidecar drains.
DRAIN_SECONDS = 6.0
CAPABILITY_VERSION_3 = 0x20080522  # linux/capability.h


@dataclass(frozen=True, slots=True)
class Rules:
    """What is intercepted. Ports as text, `*` for all; `control` is the network that only the sidecar may use; `vips` need a route to exist."""

    control: str
    vips: str
    exclude_inbound_ports: tuple[str, ...] = ()
    exclude_outbound_ports: tuple[str, ...] = ()
    exclude_outbound_ranges: tuple[str, ...] = ()
    include_outbound_ranges: tuple[str, ...] = ("*",)

    def arguments(self) -> list[str]:
        """The command line that `parse` reads."""
        out = [f"--control={self.control}", f"--vips={self.vips}"]
        for name in ("exclude_inbound_ports", "exclude_outbound_ports", "exclude_outbound_ranges"):
            if value := getattr(self, name):
                out.append(f"--{name.replace('_', '-')}={','.join(value)}")
        if self.include_outbound_ranges != ("*",):
            out.append(f"--include-outbound-ranges={','.join(self.include_outbound_ranges)}")
        return out

    @staticmethod
    def parse(arguments: Sequence[str]) -> Rules:
        parser = argparse.ArgumentParser(prog="pod")
        for name in ("control", "vips"):
            parser.add_argument(f"--{name}", required=True)
        for name in ("exclude-inbound-ports", "exclude-outbound-ports", "exclude-outbound-ranges"):
            parser.add_argument(f"--{name}", type=words, default=())
        parser.add_argument("--include-outbound-ranges", type=words, default=("*",))
        return Rules(**vars(parser.parse_args(arguments)))

    def restore(self, version: int) -> str:
        """The input of iptables-restore or ip6tables-restore."""
        lines = ["*nat", ":DEVMESH_IN - [0:0]", ":DEVMESH_OUT - [0:0]"]
        lines += ["-A PREROUTING -p tcp -j DEVMESH_IN", "-A OUTPUT -p tcp -j DEVMESH_OUT"]
        if version == 4:
            lines += [f"-I OUTPUT 1 {rule}" for rule in self._names()]
        lines += [f"-A DEVMESH_IN {rule}" for rule in self._inbound()]
        lines += [f"-A DEVMESH_OUT {rule}" for rule in self._outbound(version)]
        lines.append("COMMIT")
        if version == ipaddress.ip_network(self.control).version:
            lines += ["*filter", *self._shut(), "COMMIT"]
        return "\n".join(lines) + "\n"

    def _names(self) -> Iterable[str]:
        """Names are asked of the sidecar, and the engine's resolver only by it: before the engine's own rules, which lead there."""
        for protocol in ("tcp", "udp"):
            match = f"-d {ENGINE_RESOLVER}/32 -p {protocol} --dport 53 -m owner ! --uid-owner {SIDECAR_UID}"
            yield f"{match} -j REDIRECT --to-ports {NAMES}"

    def _inbound(self) -> Iterable[str]:
        for port in OWN_INBOUND:
            yield f"-p tcp --dport {port} -j RETURN"
        if "*" in self.exclude_inbound_ports:
            return
        for text in self.exclude_inbound_ports:
            yield f"-p tcp --dport {text} -j RETURN"
        yield f"-p tcp -j REDIRECT --to-ports {INBOUND}"

    def _outbound(self, version: int) -> Iterable[str]:
        if version == 4:
            # so that a call to oneself can be told from the sidecar's own call to its app
            yield f"-s {INBOUND_SOURCE}/32 -o lo -j RETURN"
            # A workload that calls its own service: the sidecar dials the pod's address, and its own inbound side must answer.
            yield f"-o lo ! -d 127.0.0.1/32 -p tcp -m owner --uid-owner {SIDECAR_UID} -j REDIRECT --to-ports {INBOUND}"
        yield f"-m owner --uid-owner {SIDECAR_UID} -j RETURN"
        yield "-o lo -j RETURN"
        if ipaddress.ip_network(self.control).version == version:
            yield f"-d {self.control} -j RETURN"  # refused below: redirected, it would come from the sidecar
        # A service's own address leads nowhere but to the sidecar; in Kubernetes kube-proxy would take it from here.
        own = f"! -d {self.vips} " if version == 4 else ""
        for text in self.exclude_outbound_ports:
            yield f"{own}-p tcp --dport {text} -j RETURN"
        for text in _of_version(self.exclude_outbound_ranges, version):
            yield f"-d {text} -j RETURN"
        redirect = f"-p tcp -j REDIRECT --to-ports {OUTBOUND}"
        if "*" in self.include_outbound_ranges:
            yield redirect
            return
        vips = [self.vips] if self.include_outbound_ranges else []
        for text in _of_version([*self.include_outbound_ranges, *vips], version):
            yield f"-d {text} {redirect}"

    def _shut(self) -> Iterable[str]:
        """Only the sidecar opens anything towards the control network. A packet without a socket has no owner: only new ones are judged."""
        new = "-m conntrack --ctstate NEW"
        yield f"-A OUTPUT -d {self.control} {new} -m owner ! --uid-owner {SIDECAR_UID} -j REJECT"
        for port in OWN_INBOUND:
            yield f"-A INPUT ! -i lo -s {self.control} -p tcp --dport {port} -j ACCEPT"
        yield f"-A INPUT ! -i lo -s {self.control} {new} -j REJECT"


def words(text: str) -> tuple[str, ...]:
    """A list as Istio's annotations have it."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _of_version(ranges: Iterable[str], version: int) -> list[str]:
    return [text for text in ranges if text != "*" and ipaddress.ip_network(text, strict=False).version == version]


def set_rules(rules: Rules) -> None:
    """IPv4 must work; IPv6 where the namespace has it. Raises DevmeshError with what iptables says."""
    _restore("iptables", rules.restore(4))
    if has_ipv6():
        _restore("ip6tables", rules.restore(6))


def has_ipv6() -> bool:
    try:
        with open("/proc/net/if_inet6") as file:  # noqa: PTH123 - a pseudo file
            return bool(file.read())
    except OSError:
        return False


def _restore(family: str, text: str) -> None:
    """By nf_tables (Linux 3.13): the older interface would need NET_RAW."""
    command = f"{family}-nft-restore"
    try:
        done = subprocess.run([command, "--noflush", "--wait"], input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise DevmeshError(f"the REDIRECT rules cannot be set: there is no {command} in the image", NEEDS) from None
    if done.returncode != 0:
        raise DevmeshError(f"the REDIRECT rules cannot be set: {command}: {done.stderr.strip()}", NEEDS)


def route_vips(rules: Rules) -> None:
    """A redirected packet needs a route before it is redirected; a pod on internal networks has no default one. Raises DevmeshError."""
    _ip("route", "replace", rules.vips, "dev", device_of_app(json.loads(_ip("-json", "-4", "address")), rules.control))


def device_of_app(interfaces: Iterable[Mapping[str, Any]], control: str) -> str:
    """The first interface of the user's networks: its address becomes the source of calls, and the control network's may not."""
    network = ipaddress.ip_network(control)
    for interface in interfaces:
        addresses = [ipaddress.ip_address(one["local"]) for one in interface["addr_info"]]
        if interface["ifname"] != "lo" and addresses and not any(address in network for address in addresses):
            return str(interface["ifname"])
    raise DevmeshError("the pod is on no network of the user's", "docker network ls")


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise DevmeshError(f"ip {' '.join(arguments)}: {done.stderr.strip()}", NEEDS)
    return done.stdout


def give_up_rights() -> None:
    """Keep no capability in any set. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, nothing = struct.pack("=Ii", CAPABILITY_VERSION_3, 0), bytes(24)
    if libc.capset(header, nothing) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def listeners() -> list[socket.socket]:
    """Where redirected connections arrive. They are the pod's, so that a restarted sidecar finds those that came meanwhile in the backlog."""
    made = [socket.create_server(("127.0.0.1", NAMES), backlog=BACKLOG), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)]
    made[1].bind(("127.0.0.1", NAMES))
    for port in (OUTBOUND, INBOUND):
        made.append(socket.create_server(("0.0.0.0", port), backlog=BACKLOG))
        if has_ipv6():
            made.append(socket.create_server(("::", port), family=socket.AF_INET6, backlog=BACKLOG))
    return made


class Doorman:
    """Hands the listening sockets to each sidecar that comes, which says to it that the rules are set too."""

    def __init__(self, held: Sequence[socket.socket], name: str = READY_SOCKET) -> None:
        self._held = held
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.bind(name)
        self._sock.listen(16)
        self._peers: list[socket.socket] = []

    def serve(self, stop: int) -> None:
        """Until `stop` (a file descriptor) is readable."""
        while True:
            readable, _, _ = select.select([stop, self._sock.fileno(), *(peer.fileno() for peer in self._peers)], [], [])
            for peer in [peer for peer in self._peers if peer.fileno() in readable]:
                self._peers.remove(peer)  # a sidecar says nothing: it has gone
                peer.close()
            if self._sock.fileno() in readable:
                peer = self._sock.accept()[0]
                socket.send_fds(peer, [b"S"], [sock.fileno() for sock in self._held])
                self._peers.append(peer)
            if stop in readable:
                return

    def close(self, within: float = DRAIN_SECONDS) -> None:
        """Give the sidecar an end of file and wait until it has gone: once we exit there is no network, and its peers would hang."""
        self._sock.close()
        for sock in self._held:
            sock.close()
        for peer in self._peers:
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_WR)
                peer.settimeout(within)
                peer.recv(1)
            peer.close()


def meet(
    timeout: float, clock: Callable[[], float] = time.monotonic, name: str = READY_SOCKET
) -> tuple[socket.socket, list[socket.socket]]:
    """The sidecar's side: a connection that ends when the pod does, and the listening sockets. Raises DevmeshError without a pod in time."""
    end = clock() + timeout
    while True:
        sock = socket.socket(socket.AF_UNIX)
        if sock.connect_ex(name) == 0:
            break
        sock.close()
        if clock() > end:
            raise DevmeshError(f"the pod has set no rules within {timeout:g} s", "devmesh logs shows what its init says")
        time.sleep(LOOK_AGAIN_SECONDS)
    _, fds, _, _ = socket.recv_fds(sock, 1, MAX_SOCKETS)
    return sock, [socket.socket(fileno=fd) for fd in fds]


def main(arguments: Sequence[str]) -> None:
    wake, stop = os.pipe()
    os.set_blocking(stop, False)
    signal.set_wakeup_fd(stop)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    rules = Rules.parse(arguments)
    route_vips(rules)
    set_rules(rules)
    doorman = Doorman(listeners())
    give_up_rights()
    sys.stderr.write("the pod is ready\n")
    doorman.serve(wake)
    doorman.close()


if __name__ == "__main__":
    os.umask(0o077)
    main(sys.argv[1:])
