"""Who listens in our network namespace: asked of the kernel by sock_diag(7), else read from its tables (proc(5), /proc/net/tcp and tcp6).

The question names the one state that is meant, so the kernel looks at the few sockets that listen; to print its tables it walks through a
hash table sized for all connections of the machine, milliseconds each time.
"""

from __future__ import annotations

import socket
import struct
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

LISTEN = "0A"
TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))

# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h
NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST, NLM_F_DUMP = 0x1, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
TCP_LISTEN = 10
HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port id
QUESTION = struct.Struct("=BBBBI48s")  # inet_diag_req_v2: family, protocol, extensions, padding, states, socket
ANSWER = struct.Struct("=4x2s2x16s")  # the start of inet_diag_msg: ..., source port, destination port, source address
MAX_ANSWER = 64 * 1024
Found = dict[int, set[str]]


def listening_addresses() -> Found:
    """Port -> the addresses it is open on."""
    try:
        return asked()
    except OSError:  # a kernel without inet_diag
        return read()


def asked() -> Found:
    """As sock_diag says it. Raises OSError where it does not answer."""
    found: Found = defaultdict(set)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as channel:
        for family, length in ((socket.AF_INET, 4), (socket.AF_INET6, 16)):
            for port, address in _ask(channel, family):
                found[port].add(socket.inet_ntop(family, address[:length]))
    return dict(found)


def _ask(channel: socket.socket, family: int) -> Iterator[tuple[int, bytes]]:
    """(port, address) of what listens in this family."""
    question = QUESTION.pack(family, socket.IPPROTO_TCP, 0, 0, 1 << TCP_LISTEN, b"")
    channel.send(HEADER.pack(HEADER.size + len(question), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, 1, 0) + question)
    while True:
        for kind, body in _messages(channel.recv(MAX_ANSWER)):
            if kind == NLMSG_DONE:
                return
            if kind == NLMSG_ERROR:
                number = -struct.unpack_from("=i", body)[0]
                raise OSError(number, "sock_diag")
            port, address = ANSWER.unpack_from(body)
            yield int.from_bytes(port, "big"), address


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, body) of each; they begin at multiples of four bytes (netlink(3))."""
    at = 0
    while at < len(data):
        length, kind, *_ = HEADER.unpack_from(data, at)
        yield kind, data[at + HEADER.size : at + length]
        at += (length + 3) & ~3


def read(tables: Sequence[Path] = TABLES) -> Found:
    """As the kernel's tables say it."""
    found: Found = defaultdict(set)
    for table in tables:
        try:
            lines = table.read_text().splitlines()[1:]
        except OSError:  # no IPv6 on this machine
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == LISTEN:
                address, _, port = fields[1].partition(":")
                found[int(port, 16)].add(_address(address))
    return dict(found)


def _address(text: str) -> str:
    """Words of 32 bits in the machine's byte order, in hexadecimal."""
    words = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    return socket.inet_ntop(socket.AF_INET if len(words) == 1 else socket.AF_INET6, packed)
