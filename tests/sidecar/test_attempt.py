"""One attempt between a pool with scripted endpoints and a router that only listens."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from devmesh.sidecar import attempt as module
from devmesh.sidecar.attempt import Attempt
from devmesh.sidecar.resilience import Failure
from tests.sidecar.sidecars import one_route
from tests.support.scripted import OK, Scripted
from tests.support.virtual_time import in_virtual_time, settled

pytestmark = pytest.mark.skipif(not module.__file__.endswith(".py"), reason="a scripted router is none for a compiled class")
PORT = 1001


class Router:
    """Keeps what it is told, in order."""

    def __init__(self) -> None:
        self.told = []
        self.exchange = SimpleNamespace(downstream=SimpleNamespace(flush=lambda: self.told.append("flush")))

    def connected(self, attempt, connection):
        self.told.append("connected")
        connection.request_sent = True

    def response_head(self, attempt, head, body):
        self.told.append(head.status)
        if head.status == 101:
            attempt.connection.raw = self.told.append

    def response_data(self, attempt, data):
        self.told.append(data)

    def response_end(self, attempt):
        self.told.append("end")

    def failed(self, attempt, failure, details):
        self.told.append((failure, details))

    def pause_request(self):
        self.told.append("pause")

    def resume_request(self):
        self.told.append("resume")


class Trial:
    """A world with one endpoint, and what its outlier detector and its load hear of an attempt."""

    def __init__(self, **cluster) -> None:
        self.world = Scripted(one_route(PORT, cluster=cluster))
        self.router, self.observed, self.ticks = Router(), [], iter(range(100, 200))
        upstreams = self.world.proxy.upstreams
        upstreams.observe = lambda name, key, status: self.observed.append(status)
        found = self.world.proxy.config.clusters["c"]
        self.pool = upstreams.http_pool(found, found.endpoints[0])

    def attempt(self) -> Attempt:
        return Attempt(self.router, self.pool, lambda: next(self.ticks))

    @property
    def active(self) -> int:
        return self.world.proxy.upstreams.active(self.pool.endpoint)

    async def started(self, method: bytes = b"GET") -> Attempt:
        one = self.attempt()
        assert one.start(method)
        await settled()
        return one

    async def say(self, data: bytes) -> None:
        await self.world.endpoints[PORT].say(data)


@in_virtual_time
async def test_an_answered_attempt_is_recorded_from_its_start_to_its_end():
    trial = Trial()
    one = await trial.started()
    assert trial.active == 1
    await trial.say(OK)
    assert trial.router.told == ["connected", 200, b"ok", "end"]
    assert (one.record.start_ns, one.record.end_ns, one.record.status, one.record.error) == (100, 101, 200, "")
    assert (one.record.endpoint, one.record.cluster) == (f"127.0.0.1:{PORT}", "c")
    assert (trial.active, trial.observed, one.over) == (0, [200], True)
    await trial.world.close()


@in_virtual_time
async def test_informational_heads_are_no_answer_and_a_pause_flushes():
    trial = Trial()
    one = await trial.started()
    await trial.say(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert (one.responded, one.record.status, trial.observed) == (False, 0, [])
    await trial.say(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no")
    assert (one.responded, trial.router.told) == (True, ["connected", 100, 200, b"o", "flush"])
    await trial.say(b"k")
    assert trial.router.told[-2:] == [b"k", "end"]
    await trial.world.close()


@in_virtual_time
async def test_a_circuit_breaker_that_is_open_ends_the_attempt_before_it_began():
    trial = Trial(circuit_breakers={"thresholds": [{"max_requests": 1}]})
    first, second = await trial.started(), trial.attempt()
    assert not second.start(b"GET")
    assert (second.over, trial.active, trial.router.told) == (True, 1, ["connected"])
    first.abandon()
    await trial.world.close()


@in_virtual_time
async def test_a_failure_is_told_to_the_router_and_to_the_outlier_detector():
    trial = Trial()
    one = await trial.started()
    await trial.world.endpoints[PORT].leave()
    assert trial.router.told == ["connected", (Failure.RESET, "connection_termination")]
    assert (one.record.error, trial.observed, trial.active, one.connection) == ("connection_termination", [None], 0, None)
    await trial.world.close()


@in_virtual_time
async def test_the_end_of_a_tunnel_is_no_failure_of_the_endpoint():
    trial = Trial()
    await trial.started()
    await trial.say(b"HTTP/1.1 101 X\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
    await trial.say(b"bytes")
    await trial.world.endpoints[PORT].leave()
    assert trial.router.told == ["connected", 101, b"bytes", (Failure.RESET, "connection_termination")]
    assert trial.observed == [101]
    await trial.world.close()


@in_virtual_time
async def test_an_abandoned_attempt_says_nothing_more_and_its_connection_is_not_used_again():
    trial = Trial()
    one = await trial.started()
    one.abandon()
    one.abandon()
    await trial.say(OK)
    assert trial.router.told == ["connected"]
    assert (trial.world.endpoints[PORT].ended, trial.pool.idle, trial.active, trial.observed) == ("aborted", [], 0, [])
    await trial.world.close()


@in_virtual_time
async def test_an_attempt_ends_once_however_often_it_is_told():
    trial = Trial()
    one, other = await trial.started(), await trial.started()
    one.finish()
    one.finish()
    assert (trial.active, one.record.end_ns) == (1, 102)
    one.connection.abandon()
    other.abandon()
    await trial.world.close()


@in_virtual_time
async def test_an_attempt_abandoned_while_it_waits_leaves_the_connection_to_the_next():
    trial = Trial()
    one = trial.attempt()
    assert one.start(b"GET")
    one.abandon()
    assert (trial.pool.load.pending, trial.active) == (0, 0)
    await settled()
    assert (trial.router.told, len(trial.pool.idle)) == ([], 1)
    await trial.started()
    assert trial.world.endpoints.asked == [PORT]
    await trial.say(OK)
    await trial.world.close()


@in_virtual_time
async def test_it_is_overdue_from_its_deadline_on_until_the_head_is_there():
    trial = Trial()
    one = await trial.started()
    assert not one.overdue(1e9)
    one.deadline = 5.0
    assert [one.overdue(at) for at in (4.9, 5.0)] == [False, True]
    await trial.say(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n")
    assert not one.overdue(6.0)
    await trial.say(b"ok")
    assert not one.overdue(6.0)
    await trial.world.close()


@in_virtual_time
async def test_back_pressure_of_the_endpoint_goes_to_the_router():
    trial = Trial()
    one = await trial.started()
    trial.world.endpoints[PORT].protocol.pause_writing()
    trial.world.endpoints[PORT].protocol.resume_writing()
    assert trial.router.told == ["connected", "pause", "resume"]
    one.abandon()
    await trial.world.close()
