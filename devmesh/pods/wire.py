"""How a pod's init is spoken with, and what the sidecar and it say to each other: datagrams on a SOCK_SEQPACKET pair, many items a datagram.

A request is (id, port): connect to that port of the pod's own address. An answer is (id, errno); for errno 0 one descriptor comes along,
in the answers' order (unix(7), SCM_RIGHTS). An id that the sidecar no longer waits for is closed by it.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable

REQUEST = struct.Struct("!IH")
ANSWER = struct.Struct("!Ii")
MAX_ITEMS = 128  # below SCM_MAX_FD (253)
MAX_DATAGRAM = MAX_ITEMS * ANSWER.size


def receive(channel: socket.socket, size: int, descriptors: int) -> tuple[bytes, list[int]] | None:
    """One datagram and what came along, empty when the other end is gone; None when there is none yet."""
    try:
        data, fds, _, _ = socket.recv_fds(channel, size, descriptors)
    except BlockingIOError:
        return None
    except OSError:  # gone without a word
        return b"", []
    return data, list(fds)


def encode_requests(requests: Iterable[tuple[int, int]]) -> bytes:
    return b"".join(REQUEST.pack(identity, port) for identity, port in requests)


def decode_requests(data: bytes) -> list[tuple[int, int]]:
    return list(REQUEST.iter_unpack(data))


def encode_answers(answers: Iterable[tuple[int, int]]) -> bytes:
    return b"".join(ANSWER.pack(identity, errno) for identity, errno in answers)


def decode_answers(data: bytes) -> list[tuple[int, int]]:
    return list(ANSWER.iter_unpack(data))
