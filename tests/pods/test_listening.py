"""Who listens, as the kernel answers and as its tables have it."""

import socket
import sys

import pytest

from devmesh.pods import listening
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
    assert listening.read((ipv4, ipv6, tmp_path / "absent")) == {9080: {"127.0.0.1", "0.0.0.0", "::1"}}


@pytest.fixture
def ours():
    """Two sockets that listen and one that does not, by address."""
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("::", 0), family=socket.AF_INET6) as other,
        socket.socket() as silent,
    ):
        silent.bind(("127.0.0.1", 0))
        yield [sock.getsockname()[:2] for sock in (one, other, silent)]


@pytest.mark.parametrize("look", [listening.asked, listening.read, listening_addresses])
def test_sockets_of_ours_are_found_whoever_is_asked(ours, look):
    (address, port), (address6, port6), (_, bound) = ours
    found = look()
    assert address in found[port]
    assert address6 in found[port6]
    assert bound not in found


def test_a_kernel_that_does_not_answer_has_its_tables_read(ours, monkeypatch):
    monkeypatch.setattr(listening, "NETLINK_SOCK_DIAG", 31)  # a protocol that no kernel has
    with pytest.raises(OSError, match="not supported"):
        listening.asked()
    assert "127.0.0.1" in listening_addresses()[ours[0][1]]


def test_what_the_kernel_refuses_is_an_error_and_not_an_empty_table(monkeypatch):
    monkeypatch.setattr(listening, "SOCK_DIAG_BY_FAMILY", 99)
    with pytest.raises(OSError, match="sock_diag"):
        listening.asked()
