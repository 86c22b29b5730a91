"""Who listens in our network namespace: the kernel's own table (proc(5), /proc/net/tcp and tcp6)."""

from __future__ import annotations

import socket
import struct
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

LISTEN = "0A"
TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))


def listening_addresses(tables: Sequence[Path] = TABLES) -> dict[int, set[str]]:
    """Port -> the addresses it is open on."""
    found: dict[int, set[str]] = defaultdict(set)
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
