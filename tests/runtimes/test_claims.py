"""Numbers of meshes and ports: each given once, for every user of the machine."""

import os
import socket
import subprocess
import sys

import pytest

from devmesh.errors import DevmeshError
from devmesh.runtimes import claims
from devmesh.runtimes.claims import PortClaims, claim_mesh_number, claim_port, claim_usual_port
from devmesh.runtimes.local.plan import bind_preferring, port_of

CLAIM = "import sys; from devmesh.runtimes import claims; claims.PREFIX = sys.argv[1]; print(claims.claim_mesh_number()[0])"


@pytest.fixture(autouse=True)
def start(monkeypatch):
    """Numbers and ports that no mesh takes and no connection is given, however many come and go beside this test; the first of the ports."""
    monkeypatch.setattr(claims, "PREFIX", f"test-{os.getpid()}")
    first = next(port for port in range(10_000 + os.getpid() % 4_000, 15_000, 10) if all(map(free, range(port, port + 10))))
    monkeypatch.setattr(claims, "APP_PORTS", range(first + 1, first + 10))
    return first


def free(port):
    try:
        socket.create_server(("", port)).close()
    except OSError:
        return False
    return True


def test_a_number_is_taken_until_its_mesh_ends_also_for_another_process():
    first, held = claim_mesh_number()
    with held:
        second, other = claim_mesh_number()
        other.close()
        assert (first, second) == (0, 1)
        done = subprocess.run([sys.executable, "-c", CLAIM, claims.PREFIX], capture_output=True, text=True, check=True)
        assert int(done.stdout) == 1
    again, held = claim_mesh_number()
    held.close()
    assert again == 0


def test_when_all_are_taken_it_says_so(monkeypatch):
    monkeypatch.setattr(claims, "MESHES", 0)
    with pytest.raises(DevmeshError, match="0 meshes run already") as caught:
        claim_mesh_number()
    assert caught.value.hint == "devmesh down in a folder that you no longer need"


def test_a_port_is_given_once_while_it_is_held():
    (first, held), (second, also) = claim_port(), claim_port()
    with held, also:
        assert first != second
    again, held = claim_port()
    held.close()
    assert again == first


def test_a_port_that_somebody_listens_on_is_passed_over(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.77", 0))
        port = taken.getsockname()[1]
        monkeypatch.setattr(claims, "APP_PORTS", range(port, port + 1))
        with pytest.raises(DevmeshError, match=f"no port between {port} and {port}"):
            claim_port()


@pytest.fixture
def usual(start):
    """A port that nobody has, outside of those that claims are made from otherwise."""
    return start


def test_a_usual_port_is_one_meshs_from_its_choice_on_long_before_it_is_bound(usual):
    first, held = claim_usual_port(usual)
    with held:
        second, also = claim_usual_port(usual)
        also.close()
        with bind_preferring("127.0.0.1", usual) as third:
            assert first == usual
            assert second in claims.APP_PORTS
            assert port_of(third) in claims.APP_PORTS
    with bind_preferring("127.0.0.1", usual) as bound:
        assert port_of(bound) == usual


def test_a_usual_port_that_somebody_listens_on_is_not_taken(usual):
    with socket.create_server(("127.0.0.1", usual)):
        other, held = claim_usual_port(usual)
        held.close()
        assert other != usual


def test_a_usual_port_is_had_again_while_its_last_connection_waits(usual):
    with socket.create_server(("127.0.0.1", usual)) as server:
        client = socket.create_connection(server.getsockname())
        served, _ = server.accept()
        served.close()  # the end that closes first waits (RFC 9293 3.6.1), and it has the port
        assert client.recv(1) == b""
        client.close()
    again, held = claim_usual_port(usual)
    held.close()
    assert again == usual


def test_ports_for_an_engine_are_no_other_meshs_until_it_has_bound_them(usual):
    with PortClaims() as ours, PortClaims() as others:
        given = [ours.prefer(usual), ours.prefer(0), others.prefer(usual), others.prefer(0)]
    assert given[0] == usual
    assert len(set(given)) == 4
    with PortClaims() as later:
        assert later.prefer(usual) == usual


def test_a_heir_holds_them_as_long_as_it_lives_whoever_has_chosen_them(usual):
    with PortClaims() as ours:
        chosen = {ours.prefer(0), usual}
        for _ in range(2):
            ours.take(usual)
        heir = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=ours.inheritance)
    with heir, PortClaims() as others:
        assert not chosen & {others.prefer(one) for one in chosen}
        heir.communicate(b"\n")
        assert others.prefer(usual) == usual
