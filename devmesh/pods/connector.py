"""The init's half of the connector: connects to the app from inside and passes the sockets out, as many an answer as are ready."""

from __future__ import annotations

import errno
import os
import select
import socket

from devmesh.pods.network import INBOUND_SOURCE
from devmesh.pods.wire import MAX_DATAGRAM, MAX_ITEMS, decode_requests, encode_answers


class Connector:
    """Level-triggered on one epoll, shared with the init's other work."""

    def __init__(self, channel: socket.socket, address: str, epoll: select.epoll) -> None:
        self._channel, self._address, self._epoll = channel, address, epoll
        self._connecting: dict[int, tuple[int, socket.socket]] = {}
        channel.setblocking(False)  # noqa: FBT003 - socket's own signature
        epoll.register(channel.fileno(), select.EPOLLIN)

    def handles(self, fd: int) -> bool:
        return fd == self._channel.fileno() or fd in self._connecting

    def on_events(self, fds: list[int]) -> None:
        """Everything that became readable or writable in one round."""
        done = [self._finished(fd) for fd in fds if fd in self._connecting]
        if self._channel.fileno() in fds:
            done += self._begin_requested()
        for start in range(0, len(done), MAX_ITEMS):
            self._answer(done[start : start + MAX_ITEMS])

    def _begin_requested(self) -> list[tuple[int, int, socket.socket | None]]:
        """Connections begun; those that failed at once."""
        try:
            data = self._channel.recv(MAX_DATAGRAM)
        except BlockingIOError:
            return []
        if not data:  # supervisor and sidecar are gone for good
            self._epoll.unregister(self._channel.fileno())
            return []
        return [failed for identity, port in decode_requests(data) if (failed := self._begin(identity, port))]

    def _begin(self, identity: int, port: int) -> tuple[int, int, socket.socket | None] | None:
        sock = socket.socket()
        sock.setblocking(False)  # noqa: FBT003 - as above
        try:
            sock.bind((INBOUND_SOURCE, 0))
            code = sock.connect_ex((self._address, port))
        except OSError as error:
            code = error.errno or errno.EIO
        if code not in (0, errno.EINPROGRESS):
            sock.close()
            return identity, code, None
        self._connecting[sock.fileno()] = (identity, sock)
        self._epoll.register(sock.fileno(), select.EPOLLOUT)
        return None

    def _finished(self, fd: int) -> tuple[int, int, socket.socket | None]:
        identity, sock = self._connecting.pop(fd)
        self._epoll.unregister(fd)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            sock.close()
            return identity, code, None
        return identity, 0, sock

    def _answer(self, done: list[tuple[int, int, socket.socket | None]]) -> None:
        socks = [sock for _, _, sock in done if sock is not None]
        try:
            socket.send_fds(
                self._channel, [encode_answers((identity, code) for identity, code, _ in done)], [sock.fileno() for sock in socks]
            )
        except OSError as error:
            # Nobody reads: a sidecar that is away has no use for these, and its successor asks again.
            os.write(2, f"connector: {len(done)} connections not handed over: {error}\n".encode())
        for sock in socks:
            sock.close()
