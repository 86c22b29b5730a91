"""A pod's init with real namespaces: where the app's calls go, how its ports are reached, what ends with what."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import struct
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from devmesh.runtimes.processes import start_time
from devmesh.sidecar.original_dst import original_destination
from tests.pods.harness import ADDRESS, OnePod, gone, one_pod
from tests.support.require import pods
from tests.support.waiting import until

CALL = "import socket; s = socket.create_connection(({host!r}, {port}), 60); s.sendall(b'hello'); print(s.recv(100).decode())"
SERVE = """
import socket
listener = socket.create_server((%r, %d))
while True:
    connection, peer = listener.accept()
    connection.sendall(peer[0].encode() + b' said ')
    while data := connection.recv(65536):
        connection.sendall(data)
    connection.sendall(b' and no more')
    connection.close()
"""


@pytest.fixture
async def pod(tmp_path) -> AsyncIterator[OnePod]:
    pods()
    async with one_pod(tmp_path) as pod:
        yield pod


async def finish(pod: OnePod, sock: socket.socket) -> str:
    """Answer an app's call and return what the app printed."""
    loop = asyncio.get_running_loop()
    sock.setblocking(False)
    assert await loop.sock_recv(sock, 100) == b"hello"
    await loop.sock_sendall(sock, b"welcome")
    sock.close()
    await pod.event("exited")
    return pod.log.read_text().strip()


@pytest.mark.parametrize(
    ("host", "port", "family"),
    [
        ("240.240.250.1", 9080, socket.AF_INET),
        ("203.0.113.7", 443, socket.AF_INET),
        ("127.7.250.9", 9080, socket.AF_INET),
        ("2001:db8::7", 443, socket.AF_INET6),
    ],
    ids=["a VIP", "an outside address", "another workload's own address", "IPv6"],
)
async def test_a_call_arrives_at_15001_with_its_original_destination(pod, host, port, family):
    if family == socket.AF_INET6 and not any(one.sock.family == family for one in pod.plan.sockets):
        pytest.skip("this machine has no IPv6")
    pod.start(CALL.format(host=host, port=port))
    accepted = await pod.accept(pod.sockets("virtual_outbound", family))
    assert original_destination(accepted) == (host, port)
    assert await finish(pod, accepted) == "welcome"


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM], ids=["UDP", "TCP"])
async def test_a_question_to_any_name_server_arrives_at_15053(pod, kind):
    pod.start(
        f"import socket; s = socket.socket(type={int(kind)}); s.connect(('203.0.113.53', 53)); s.send(b'hello'); print(s.recv(99).decode())"
    )
    sock = pod.sockets("dns", kind=kind)
    sock.setblocking(False)
    if kind == socket.SOCK_STREAM:
        assert await finish(pod, await pod.accept(sock)) == "welcome"
        return
    loop = asyncio.get_running_loop()
    data, address = await loop.sock_recvfrom(sock, 100)
    assert data == b"hello"
    await loop.sock_sendto(sock, b"welcome", address)
    await pod.event("exited")
    assert pod.log.read_text().strip() == "welcome"


async def test_what_is_neither_tcp_nor_dns_is_refused_at_once(pod):
    said = await pod.output(
        "import socket; s = socket.socket(type=2); s.settimeout(60); s.connect(('203.0.113.7', 443)); s.send(b'x'); s.recv(9)"
    )
    assert "PermissionError" in said or "ConnectionRefusedError" in said


async def test_the_app_is_reached_from_istios_address_and_half_closes_survive(pod):
    pod.start(SERVE % ("0.0.0.0", 9080), ports=(9080,))
    assert (await pod.event("listening"))["addresses"] == {"9080": ["0.0.0.0"]}
    connector = pod.connector()
    sock = await connector.connect(9080)
    assert sock.getpeername() == (ADDRESS, 9080)
    reader, writer = await asyncio.open_connection(sock=sock)
    writer.write(b"hello")
    writer.write_eof()
    assert await reader.read() == b"127.0.0.6 said hello and no more"
    writer.close()
    connector.close()


def fill(sock: socket.socket) -> None:
    while True:
        sock.send(bytes(65536))


async def test_back_pressure_and_aborts_pass_between_the_app_and_who_is_given_its_connection(pod):
    deaf = "import socket, sys\nlistener = socket.create_server(('0.0.0.0', 9080))\nconnection = listener.accept()[0]\nlistener.accept()\n"
    told = "try:\n    while connection.recv(65536): pass\nexcept ConnectionResetError:\n    print('reset')"
    pod.start(deaf + told, ports=(9080,))
    await pod.event("listening")
    connector = pod.connector()
    sock = await connector.connect(9080)
    with pytest.raises(BlockingIOError):  # it reads nothing: what it has not read is all that fits
        fill(sock)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    (await connector.connect(9080)).close()  # only now it reads
    await pod.event("exited")
    assert pod.log.read_text() == "reset\n"
    connector.close()


async def test_many_connections_asked_at_once_are_all_given_and_a_closed_port_is_refused(pod):
    pod.start("import socket, signal; s = socket.create_server(('0.0.0.0', 9080), backlog=1024); signal.pause()", ports=(9080,))
    await pod.event("listening")
    connector = pod.connector()
    socks = await asyncio.gather(*(connector.connect(9080) for _ in range(300)))
    assert len({sock.getsockname() for sock in socks}) == 300
    for sock in socks:
        sock.close()
    with pytest.raises(OSError, match="refused") as refused:
        await connector.connect(9081)
    assert refused.value.errno == errno.ECONNREFUSED
    connector.close()


async def test_the_answers_to_a_sidecar_that_is_gone_mean_nothing_to_its_successor(pod):
    pod.start("import socket, signal; s = socket.create_server(('0.0.0.0', 9080), backlog=1024); signal.pause()", ports=(9080,))
    await pod.event("listening")
    first = pod.connector()
    asked = asyncio.ensure_future(first.connect(9080))
    await asyncio.sleep(0)
    asked.cancel()
    first.close()
    second = pod.connector()
    (await second.connect(9080)).close()
    second.close()


async def test_the_app_has_the_users_own_uid_and_may_not_touch_the_pods_network(pod):
    script = "import os, subprocess; print(os.getuid(), flush=True); subprocess.run(['/usr/sbin/iptables', '-t', 'nat', '-F'])"
    said = await pod.output(script)
    assert said.splitlines()[0] == str(os.getuid())
    assert "Permission denied" in said or "Operation not permitted" in said


async def test_the_app_may_bind_a_port_below_1024(pod):
    pod.start(SERVE % ("0.0.0.0", 80), ports=(80,))
    assert (await pod.event("listening"))["addresses"] == {"80": ["0.0.0.0"]}


async def test_an_app_that_wants_15001_is_told_that_it_is_taken(pod):
    assert "Address already in use" in await pod.output("import socket; socket.create_server(('0.0.0.0', 15001))")


async def test_an_apps_status_is_reported_and_what_it_left_running_ends_with_it(pod):
    big = "    kept = bytearray(b'x') * (400 << 20)\n"  # its end takes a while
    script = f"import os, sys, time\nready, begun = os.pipe()\nif os.fork() == 0:\n    os.setsid()\n{big}    os.close(begun)\n    time.sleep(600)\n"
    pod.start(f"{script}os.close(begun)\nos.read(ready, 1)\nsys.exit(7)")
    inside = (await pod.event("app"))["pid"]
    assert (await pod.event("exited"))["status"] == 7
    left = subprocess.run(["pgrep", "-P", str(pod.init_pid)], capture_output=True, text=True, check=False).stdout.split()
    assert left == [], f"the app was {inside}"
    assert await pod.output("print('again')") == "again\n"


async def test_an_app_that_closes_every_descriptor_runs_on(pod):
    pod.start("import os, socket\nos.closerange(0, 4096)\n" + SERVE % ("0.0.0.0", 9080), ports=(9080,))
    await pod.event("listening")


async def test_a_command_that_does_not_exist_says_so_in_the_log(pod):
    request = {"argv": ["/nowhere/app"], "environment": {}, "cwd": "/"}
    with pod.log.open("ab") as log:
        pod.pods.start_app("app", request, log.fileno())
    assert (await pod.event("exited"))["status"] == 127
    assert "cannot start /nowhere/app: No such file or directory" in pod.log.read_text()


async def test_sigterm_reaches_the_app_and_the_pod_ends_after_it(pod):
    script = "import signal, sys\nsignal.signal(15, lambda *_: (print('bye', flush=True), sys.exit(0)))\nprint('up', flush=True)\n"
    pod.start(script + SERVE % ("0.0.0.0", 9080), ports=(9080,))
    await pod.event("listening")
    os.kill(pod.outer_pid, signal.SIGTERM)
    assert (await pod.event("exited"))["status"] == 0
    await gone(pod.init_pid)
    assert pod.log.read_text() == "up\nbye\n"


@pytest.mark.parametrize("killed", ["outer_pid", "init_pid"])
async def test_a_killed_pod_takes_its_app_with_it(pod, killed):
    pod.start("import signal; signal.pause()")
    inside = (await pod.event("app"))["pid"]
    app = pod.pods.outside_pid("app", inside)
    os.kill(getattr(pod, killed), signal.SIGKILL)
    await gone(app)
    await gone(pod.init_pid)
    await gone(pod.outer_pid)


async def test_a_paused_app_stands_still_and_goes_on(pod):
    pod.start("import signal; signal.pause()")
    app = pod.pods.outside_pid("app", (await pod.event("app"))["pid"])

    def state() -> str:
        return Path(f"/proc/{app}/stat").read_text().rpartition(")")[2].split()[0]

    await until(lambda: state() == "S")
    pod.pods.signal("app", signal.SIGSTOP, everything=True)
    await until(lambda: state() == "T")
    pod.pods.signal("app", signal.SIGCONT, everything=True)
    await until(lambda: state() == "S")


def run_check(pod: OnePod, script: str, timeout: float = 30) -> None:
    environment = {**os.environ, "COLOUR": "green"}
    pod.pods.check(
        "app", {"command": "check", "id": 7, "argv": ["sh", "-c", script], "environment": environment, "cwd": "/", "timeout": timeout}
    )


async def test_a_healthcheck_is_run_where_the_app_runs_and_as_its_user(pod):
    pod.start("import time; time.sleep(600)")
    await pod.event("app")
    run_check(pod, "echo $COLOUR $(hostname) $(id -u) $(pwd); exit 4")
    assert await pod.event("checked") == {"event": "checked", "id": 7, "status": 4, "output": f"green app {os.geteuid()} /"}


async def test_a_healthcheck_that_hangs_is_killed_with_what_it_started_and_the_app_lives_on(pod, tmp_path):
    pod.start("import time; time.sleep(600)")
    await pod.event("app")
    run_check(pod, f"setsid sh -c 'setsid sleep 4711 & wait' & sleep 1; readlink /proc/self/ns/pid >{tmp_path}/ns; sleep 600", 2)
    assert (await pod.event("checked"))["output"] == "Health check exceeded timeout (2s)"
    namespace = (tmp_path / "ns").read_text().strip()
    inside = [one for one in Path("/proc").glob("[0-9]*") if _namespace(one) == namespace]
    assert len(inside) == 2, "the init and its app"


def _namespace(process: Path) -> str:
    try:
        return str((process / "ns" / "pid").readlink()) if start_time(int(process.name)) else ""
    except OSError:
        return ""


async def test_a_healthcheck_ends_with_its_app(pod, tmp_path):
    pod.start("import time; time.sleep(600)")
    await pod.event("app")
    run_check(pod, f"echo yes >{tmp_path}/runs; sleep 600")
    await until((tmp_path / "runs").exists)
    pod.pods.signal("app", signal.SIGKILL, everything=False)
    assert await pod.event("exited") == {"event": "exited", "status": -signal.SIGKILL}
