"""The kernel's table of sockets, as proc(5) has it."""

import socket
import sys

import pytest

from devmesh.pods.listening import listening_addresses

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
LINE = "   0: {address}:{port} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0\n"


@pytest.mark.skipif(sys.byteorder != "little", reason="the tables below are as a little-endian machine writes them")
def test_only_listening_sockets_count_with_their_addresses(tmp_path):
    ipv4, ipv6 = tmp_path / "tcp", tmp_path / "tcp6"
    ipv4.write_text(
        HEAD
        + LINE.format(address="0100007F", port="2378", state="0A")
        + LINE.format(address="00000000", port="2378", state="0A")
        + LINE.format(address="0100007F", port="2379", state="01")
    )
    ipv6.write_text(HEAD + LINE.format(address="00000000000000000000000001000000", port="2378", state="0A"))
    assert listening_addresses((ipv4, ipv6, tmp_path / "absent")) == {9080: {"127.0.0.1", "0.0.0.0", "::1"}}


def test_a_socket_of_ours_is_found():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        assert "127.0.0.1" in listening_addresses()[sock.getsockname()[1]]
