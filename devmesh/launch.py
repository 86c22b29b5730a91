"""The preloaded process that sidecars and our own servers are forked from: imports once, forks in milliseconds.

It has no thread and no event loop when it forks. Requests are datagrams on a socketpair: JSON, with the child's sockets as SCM_RIGHTS;
answers say `started`, `ready` and `exited`. A request does not wait until everything is imported, only for what its own entry needs.
A request to `keep` starts nothing: its sockets stay open here and in every later child. When the supervisor dies the launcher stays, as the
parent of what still serves.
"""

from __future__ import annotations

import gc
import importlib
import json
import logging
import os
import random
import select
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MAX_REQUEST = 64 * 1024
MAX_SOCKETS = 64
Ready = Callable[[], None]
Sockets = list[socket.socket]


def run_sidecar(arguments: dict[str, Any], sockets: Sockets, ready: Ready) -> None:
    from devmesh.sidecar.__main__ import main  # noqa: PLC0415 - preloaded; named here so that each entry stands alone
    from devmesh.sidecar.listener import SocketSpec  # noqa: PLC0415 - as above

    specs = []
    for spec, sock in zip(arguments["sockets"], sockets, strict=True):
        original = tuple(spec["original"]) if spec.get("original") else None
        specs.append(SocketSpec(spec["role"], spec["address"], spec["port"], sock, original))
    main(Path(arguments["bootstrap"]), specs, ready)


def run_registry(arguments: dict[str, Any], sockets: Sockets, ready: Ready) -> None:
    from devmesh.registry.embedded.server import serve  # noqa: PLC0415 - as above

    _run(serve(sockets[0], Path(arguments["directory"]), _token(arguments), ready))


def run_ca(arguments: dict[str, Any], sockets: Sockets, ready: Ready) -> None:
    from devmesh.ca.server import serve  # noqa: PLC0415 - as above

    host_names = arguments.get("host_names", ())
    _run(serve(sockets[0], Path(arguments["directory"]), _token(arguments), ready, arguments.get("otlp_url"), host_names))


def run_control(arguments: dict[str, Any], sockets: Sockets, ready: Ready) -> None:
    from devmesh.controlplane.server import serve  # noqa: PLC0415 - as above

    xds, admin = sockets
    registry, ca, spiffe_id = arguments["registry_url"], arguments["ca"], arguments["spiffe_id"]
    _run(serve(xds, admin, registry, _token(arguments), ca, spiffe_id, ready, arguments.get("otlp_url")))


def run_collector(arguments: dict[str, Any], sockets: Sockets, ready: Ready) -> None:
    from devmesh.collector.server import serve  # noqa: PLC0415 - as above

    _run(serve(sockets[0], sockets[1], _token(arguments), ready))


def run_pod(arguments: dict[str, Any], sockets: Sockets, ready: Ready) -> None:
    from devmesh.pods.init import PodSpec  # noqa: PLC0415 - as above
    from devmesh.pods.init import run_pod as run  # noqa: PLC0415 - as above

    del ready  # the pod tells the supervisor by itself, with its sockets
    sys.exit(run(PodSpec.parse(arguments), sockets[0]))


def _run(work: Coroutine[Any, Any, None]) -> None:
    import asyncio  # noqa: PLC0415 - the pods' launcher has no use for it

    asyncio.run(work)


def _token(arguments: dict[str, Any]) -> str:
    """By file name, never in a message or an argument list."""
    return Path(arguments["token_file"]).read_text().strip()


Entry = Callable[[dict[str, Any], Sockets, Ready], None]
ENTRIES: Mapping[str, Entry] = {
    "sidecar": run_sidecar,
    "registry": run_registry,
    "ca": run_ca,
    "control": run_control,
    "collector": run_collector,
    "pod": run_pod,
}
# What each entry imports, in the order in which `up` comes to need them. A module's `warm_up`, where it has one, is called after its import:
# what is made at its first use is made before the forks, seven megabytes less of each child's own.
MODULES: Mapping[str, Sequence[str]] = {
    "registry": ("devmesh.registry.embedded.server",),
    "collector": ("devmesh.collector.server",),
    "ca": ("devmesh.ca.server", "devmesh.ca.warm"),
    "control": ("devmesh.controlplane.server", "devmesh.xds.schema", "opentelemetry.sdk.trace.export"),
    "sidecar": ("devmesh.sidecar.__main__",),
}


@contextmanager
def without_authorities() -> Iterator[None]:
    """aiohttp and requests read the machine's certificate authorities as they are imported: 40 ms each where they are in one file.

    For imports alone: a sidecar that originates TLS does read them (sidecar/tls.py).
    """
    names = ("load_default_certs", "set_default_verify_paths")
    kept = [(name, getattr(ssl.SSLContext, name)) for name in names]
    for name in names:
        setattr(ssl.SSLContext, name, lambda *_: None)
    try:
        yield
    finally:
        for name, method in kept:
            setattr(ssl.SSLContext, name, method)


class Launcher:
    """`modules` are imported between requests, the one that a request needs before it."""

    def __init__(
        self, channel: socket.socket, entries: Mapping[str, Entry] = ENTRIES, modules: Mapping[str, Sequence[str]] = MODULES
    ) -> None:
        self._channel = channel
        self._entries = entries
        self._to_import = dict(modules)
        self._names: dict[int, str] = {}
        self._ready: dict[int, str] = {}
        self._kept: list[int] = []

    def serve(self) -> None:
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_write)
        supervised = True
        while supervised or self._names:
            watched: list[Any] = [wake_read, *self._ready, *([self._channel] if supervised else [])]
            readable, _, _ = select.select(watched, [], [], 0 if self._to_import else None)
            if wake_read in readable:
                os.read(wake_read, 512)
                self._reap()
            for fd in [fd for fd in readable if fd in self._ready]:
                self._became_ready(fd)
            if self._channel in readable:
                supervised = self._request()
            elif self._to_import:
                self._import(next(iter(self._to_import)))

    def _import(self, entry: str) -> None:
        for name in self._to_import.pop(entry, ()):
            with without_authorities():
                module = importlib.import_module(name)
            if hasattr(module, "warm_up"):
                module.warm_up()

    def _request(self) -> bool:
        try:
            message, fds, _, _ = socket.recv_fds(self._channel, MAX_REQUEST, MAX_SOCKETS)
        except ConnectionError:
            return False
        if not message:
            return False
        request = json.loads(message)
        if request.get("keep"):
            self._kept += fds
            return True
        if "own_log" in request:
            _log_to(request["own_log"])
        self._import(request["entry"])
        gc.freeze()  # children share these pages as long as nobody writes to them
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read_end)
            self._child(request, fds, write_end)
        os.close(write_end)
        for fd in fds:
            os.close(fd)
        self._names[pid], self._ready[read_end] = request["name"], request["name"]
        self._tell({"event": "started", "name": request["name"], "pid": pid})
        return True

    def _child(self, request: dict[str, Any], fds: list[int], ready_fd: int) -> None:
        status = 70
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._channel.close()
            _log_to(request["log"])
            gc.enable()
            random.seed()  # the parent's generator would give every child the same numbers
            self._entries[request["entry"]](request["arguments"], [socket.socket(fileno=fd) for fd in fds], lambda: _say_ready(ready_fd))
            status = 0
        except KeyboardInterrupt:
            status = 130
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        except BaseException:
            logging.getLogger("devmesh").exception("%s ends", request["name"])
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _became_ready(self, fd: int) -> None:
        name = self._ready.pop(fd)
        if os.read(fd, 1):
            self._tell({"event": "ready", "name": name})
        os.close(fd)

    def _reap(self) -> None:
        while self._names:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            name = self._names.pop(pid, None)
            if name is not None:
                self._tell({"event": "exited", "name": name, "pid": pid, "status": os.waitstatus_to_exitcode(status)})

    def _tell(self, event: dict[str, Any]) -> None:
        try:
            self._channel.send(json.dumps(event).encode())
        except OSError:
            pass  # no supervisor any more: nobody to tell


def _say_ready(fd: int) -> None:
    os.write(fd, b"R")
    os.close(fd)


def _log_to(path: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
