"""The launcher: loads, forks what it is asked for, and goes with its starter."""

import json
import select
import socket

from devmesh.runtimes.files import MeshFiles
from devmesh.runtimes.local.preload import preload
from devmesh.runtimes.processes import start_time, stop_all


def told(channel: socket.socket, within: float = 30) -> dict:
    assert select.select([channel], [], [], within)[0], "the launcher says nothing"
    return json.loads(channel.recv(65536))


def test_it_says_loaded_reports_what_it_forks_and_ends_when_told(tmp_path):
    files = MeshFiles.of(tmp_path / "compose.yaml")
    files.make()
    token = files.mesh_token()
    launcher = preload(files)
    try:
        assert told(launcher.channel) == {"event": "loaded"}
        with socket.create_server(("127.0.0.1", 0)) as sock:
            arguments = {"directory": str(files.root / "registry"), "token_file": str(files.token)}
            request = {"name": "registry", "entry": "registry", "log": str(files.log("registry")), "arguments": arguments}
            socket.send_fds(launcher.channel, [json.dumps(request).encode()], [sock.fileno()])
            began, ready = told(launcher.channel), told(launcher.channel)
        assert (began["event"], ready) == ("started", {"event": "ready", "name": "registry"})
        assert token not in files.log("registry").read_text()
        request |= {"name": "broken", "arguments": {"token_file": "/nonexistent"}, "log": str(files.log("broken"))}
        socket.send_fds(launcher.channel, [json.dumps(request).encode()], [])
        assert told(launcher.channel)["event"] == "started"
        ended = told(launcher.channel)
        assert (ended["event"], ended["name"], ended["status"]) == ("exited", "broken", 70)
        assert "broken ends" in files.log("broken").read_text()
    finally:
        launcher.end()
    assert start_time(launcher.pid) is None
    launcher.end()
    forked = began["pid"]
    assert start_time(forked) is not None, "what it forked lives on"
    stop_all([(forked, start_time(forked))], grace=5)
    assert start_time(forked) is None
