"""PID 1 of a pod: sets it up, starts the app when told, reaps, reports, connects for the sidecar. Single-threaded, no event loop library.

It outlives a killed supervisor and goes on serving; with its end the kernel ends everything in the pod and takes the namespaces down.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devmesh.pods import names, network
from devmesh.pods.app import AppSpec, start
from devmesh.pods.check import Run, fork_run
from devmesh.pods.connector import Connector
from devmesh.pods.listening import listening_addresses
from devmesh.pods.namespaces import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_PRIVATE, MS_REC, die_with_parent, map_user, mount, unshare
from devmesh.pods.namespaces import POD_NAMESPACES as POD
from devmesh.pods.wire import receive

log = logging.getLogger(__name__)
LOOK_SECONDS = 0.01
MAX_COMMAND = 256 * 1024  # a whole environment
EVERYTHING = -1  # kill(2): every process of our PID namespace but ourselves


@dataclass(frozen=True, slots=True)
class PodSpec:
    """`hosts` and `resolv_conf` are files of ours that the pod sees as /etc/hosts and /etc/resolv.conf."""

    name: str
    address: str
    hosts: Path
    resolv_conf: Path
    uid: int
    gid: int

    @staticmethod
    def parse(value: dict[str, Any]) -> PodSpec:
        return PodSpec(
            value["name"], value["address"], Path(value["hosts"]), Path(value["resolv_conf"]), int(value["uid"]), int(value["gid"])
        )


class Init:
    """Talks JSON datagrams with the supervisor: `start`, `check` and `signal` in; `pod`, `app`, `checked` and `exited` out."""

    def __init__(self, spec: PodSpec, channel: socket.socket) -> None:
        self._spec, self._channel = spec, channel
        self._app = 0
        self._stopping = False
        self._epoll = select.epoll()
        self._connector: Connector | None = None
        self._awaited: tuple[int, ...] = ()

    def run(self) -> int:
        """Live until the app has ended after a SIGTERM."""
        wake = self._watch_signals()
        self._set_up()
        self._epoll.register(self._channel.fileno(), select.EPOLLIN)
        self._epoll.register(wake, select.EPOLLIN)
        while not (self._stopping and not self._app):
            fds = [fd for fd, _ in self._epoll.poll(LOOK_SECONDS if self._awaited else None)]
            if wake in fds:
                os.read(wake, 512)
                self._reap()
            if self._channel.fileno() in fds:
                self._take_command()
            if self._connector is not None and any(map(self._connector.handles, fds)):
                self._connector.on_events(fds)
            self._look_for_listeners()
        return 0

    def _watch_signals(self) -> int:
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.set_wakeup_fd(write_end)
        return read_end

    def _set_up(self) -> None:
        started = time.monotonic()
        mount("none", "/", flags=MS_REC | MS_PRIVATE)
        notes = self._mount_files()
        socket.sethostname(self._spec.name)
        ipv6 = network.set_up(self._spec.address)
        made = network.sockets(ipv6=ipv6)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._connector = Connector(ours, self._spec.address, self._epoll)
        message = {
            "event": "pod",
            "seconds": time.monotonic() - started,
            "sockets": [one.to_json() for one in made],
            "notes": notes,
            "ipv6": ipv6,
        }
        with theirs:
            socket.send_fds(self._channel, [json.dumps(message).encode()], [*(one.sock.fileno() for one in made), theirs.fileno()])
        for one in made:
            one.sock.close()

    def _mount_files(self) -> list[str]:
        notes = []
        for source, target in ((self._spec.hosts, "/etc/hosts"), (self._spec.resolv_conf, "/etc/resolv.conf")):
            problem = names.mount_over(source, target)
            if problem:
                notes.append(f"{target} stays the machine's own: {problem}")
        try:
            mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        except OSError as error:
            notes.append(f"/proc shows the machine's processes: {error.strerror}")
        return notes

    def _take_command(self) -> None:
        received = receive(self._channel, MAX_COMMAND, 1)
        if received is None:
            return
        data, fds = received
        if not data:
            self._epoll.unregister(self._channel.fileno())  # the supervisor is gone; the app serves on
            return
        command = json.loads(data)
        if command["command"] == "start":
            self._start(command, fds[0])
        elif command["command"] == "check":
            self._check(command)
        elif self._app:
            self._signal(int(command["signal"]), everything=bool(command.get("everything")))
        for fd in fds:
            os.close(fd)

    def _start(self, command: dict[str, Any], log_fd: int) -> None:
        spec = AppSpec(command["argv"], command["environment"], command["cwd"], self._spec.uid, self._spec.gid)
        self._app = start(spec, log_fd)
        self._awaited = tuple(command["ports"])
        self._tell({"event": "app", "pid": self._app})

    def _check(self, command: dict[str, Any]) -> None:
        """A run of the app's healthcheck, as the app's user; what it has started when the app ends, ends too."""
        if not self._app:
            return
        one = Run.parse(command)
        spec = AppSpec(one.argv, one.environment, one.cwd, self._spec.uid, self._spec.gid)
        fork_run(one, int(command["id"]), self._channel, lambda output: start(spec, output))

    def _look_for_listeners(self) -> None:
        """The kernel tells nobody when a port opens; a look at its table costs the app nothing, a connection might."""
        if not self._awaited:
            return
        found = listening_addresses()
        if all(port in found for port in self._awaited):
            self._tell({"event": "listening", "addresses": {port: sorted(found[port]) for port in self._awaited}})
            self._awaited = ()

    def _signal(self, number: int, *, everything: bool) -> None:
        """To the app's group; to all of the pod when the processes it has left behind are meant, too."""
        try:
            if everything:
                os.kill(EVERYTHING, number)
            else:
                os.killpg(self._app, number)
        except ProcessLookupError:
            pass  # it ended meanwhile: the reaper says so

    def _stop(self, *_: object) -> None:
        self._stopping = True
        if self._app:
            self._signal(signal.SIGCONT, everything=True)  # a paused app could not end
            self._signal(signal.SIGTERM, everything=False)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._app:
                self._ended(os.waitstatus_to_exitcode(status))

    def _ended(self, status: int) -> None:
        """The app is its pod: what it has left running ends with it, as a container's processes end with its first."""
        self._app, self._awaited = 0, ()
        with contextlib.suppress(ProcessLookupError, ChildProcessError):  # it left nothing
            os.kill(EVERYTHING, signal.SIGKILL)
            while True:  # until all of it is gone: the app's next start finds its ports free
                os.waitpid(-1, 0)
        self._tell({"event": "exited", "status": status})

    def _tell(self, event: dict[str, Any]) -> None:
        try:
            self._channel.send(json.dumps(event).encode())
        except OSError:
            pass  # no supervisor any more: nobody to tell


def run_pod(spec: PodSpec, channel: socket.socket) -> int:
    """Make the namespaces, fork the init into them, wait for it. Raises OSError where the kernel refuses, when it has said so.

    The init begins when its pid has been told: nobody who hears of its pod, or of the app's pid inside, can do without.
    """
    try:
        _make_namespaces()
    except OSError as error:
        _say_failed(channel, error)
        raise
    go_read, go_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(go_write)
        _be_init(spec, channel, go_read)
    os.close(go_read)
    channel.send(json.dumps({"event": "init", "pid": pid}).encode())
    channel.close()
    with contextlib.suppress(BrokenPipeError):  # it has ended already, and its status says so
        os.write(go_write, b"G")
    os.close(go_write)

    def forward(number: int, _: object) -> None:
        with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
            os.kill(pid, number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, forward)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _make_namespaces() -> None:
    mapper = _mapper_for_root() if os.geteuid() == 0 else None
    uid, gid = os.geteuid(), os.getegid()
    unshare(POD)
    if mapper is None:
        map_user(os.getpid(), 0, 0, uid, gid)
    else:
        mapper()


def _say_failed(channel: socket.socket, error: OSError) -> None:
    channel.send(json.dumps({"event": "failed", "why": error.strerror or str(error)}).encode())


def _be_init(spec: PodSpec, channel: socket.socket, go: int) -> None:
    """Never returns."""
    status = 70
    try:
        if os.getpid() != 1:
            raise OSError("not in a PID namespace of its own")  # noqa: TRY301 - `kill -1` would reach the whole machine
        die_with_parent(signal.SIGKILL)
        if os.read(go, 1):  # else the parent has died before
            status = Init(spec, channel).run()
    except OSError as error:
        log.exception("the pod of %s", spec.name)
        _say_failed(channel, error)
    finally:
        os._exit(status)


def _mapper_for_root() -> Any:
    """Root maps all ids, so that an app may change its user; that takes a writer outside the new namespace (user_namespaces(7))."""
    go_read, go_write = os.pipe()
    target = os.getpid()
    writer = os.fork()
    if writer == 0:
        status = 1
        try:
            os.close(go_write)
            if os.read(go_read, 1):
                map_user(target, 0, 0, 0, 0)
                status = 0
        finally:
            os._exit(status)
    os.close(go_read)

    def finish() -> None:
        os.write(go_write, b"G")
        os.close(go_write)
        if os.waitpid(writer, 0)[1] != 0:
            raise OSError("the pod's users could not be mapped")

    return finish
