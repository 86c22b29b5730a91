"""The process that others are forked from: a request waits for what its own entry imports, and for nothing else."""

import json
import socket
import subprocess
import sys

PROGRAM = """
import socket, sys
from devmesh.launch import Launcher

def entry(arguments, sockets, ready):
    import warm
    sockets[0].send(repr([warm.warmed, [name for name in ("slow", "quick") if name in sys.modules]]).encode())

Launcher(socket.socket(fileno=int(sys.argv[1])), {"quick": entry, "slow": entry}, {"slow": ("slow",), "quick": ("warm", "quick")}).serve()
"""


def test_a_request_waits_for_what_its_entry_needs_and_the_rest_is_imported_afterwards(tmp_path):
    (tmp_path / "slow.py").touch()
    (tmp_path / "quick.py").touch()
    (tmp_path / "warm.py").write_text("warmed = 0\ndef warm_up():\n    global warmed\n    warmed += 1\n")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    heard, told = socket.socketpair()
    with ours, heard:
        ask(ours, "quick", told, tmp_path)  # before it looks for the first time
        with (
            theirs,
            subprocess.Popen([sys.executable, "-c", PROGRAM, str(theirs.fileno())], pass_fds=[theirs.fileno()], cwd=tmp_path) as process,
        ):
            theirs.close()
            assert heard.recv(100) == b"[1, ['quick']]"
            ask(ours, "slow", told, tmp_path)
            assert heard.recv(100) == b"[1, ['slow', 'quick']]"
            told.close()
            ours.shutdown(socket.SHUT_RDWR)
            assert process.wait(30) == 0


def ask(channel, entry, sock, folder):
    request = {"name": entry, "entry": entry, "arguments": {}, "log": str(folder / "log")}
    socket.send_fds(channel, [json.dumps(request).encode()], [sock.fileno()])
