import asyncio
import socket

import pytest

from devmesh.sidecar.telemetry import exporter
from devmesh.sidecar.telemetry.exporter import BATCH, QUEUE, SpanExporter
from devmesh.sidecar.telemetry.spans import SpanEncoder
from tests.sidecar.telemetry.collector import collector
from tests.sidecar.telemetry.records import PRODUCTPAGE, inbound, outbound
from tests.support.virtual_time import in_virtual_time, settled


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(exporter, "INTERVAL", 0.01)


def made(url):
    return SpanExporter(SpanEncoder(PRODUCTPAGE), url)


def timers():
    return [handle for handle in asyncio.get_running_loop()._scheduled if not handle.cancelled()]


async def test_spans_arrive_as_otlp():
    async with collector() as found:
        spans = made(found.url)
        spans.start()
        spans.offer(outbound())
        spans.offer(inbound())
        await found.until(lambda: sum(found.sizes) == 3)
        await spans.stop()
    assert found.types == {"application/x-protobuf"}
    assert (spans.sent, spans.dropped) == (3, 0)


@in_virtual_time
async def test_nothing_wakes_up_while_there_is_no_span():
    spans = made("http://127.0.0.1:1/v1/traces")
    spans.start()
    await asyncio.sleep(60)
    assert not timers()
    spans.offer(inbound())
    await settled()
    assert timers(), "it waits for more"
    await spans.stop()


async def test_many_spans_go_in_batches():
    async with collector() as found:
        spans = made(found.url)
        for _ in range(BATCH + 100):
            spans.offer(inbound())
        spans.start()
        await found.until(lambda: sum(found.sizes) == BATCH + 100)
        await spans.stop()
    assert found.sizes == [BATCH, 100]


async def test_a_full_batch_is_sent_at_once_and_what_came_behind_it_waits_for_its_own(monkeypatch):
    monkeypatch.setattr(exporter, "INTERVAL", 60.0)
    async with collector() as found:
        spans = made(found.url)
        spans.start()
        for _ in range(BATCH + 100):
            spans.offer(inbound())
        await found.until(lambda: found.sizes == [BATCH])
        spans.offer(inbound())
        await spans.stop()
    assert found.sizes == [BATCH, 101]


async def test_what_is_left_is_sent_when_the_sidecar_stops(monkeypatch):
    monkeypatch.setattr(exporter, "INTERVAL", 60.0)
    async with collector() as found:
        spans = made(found.url)
        spans.start()
        spans.offer(inbound())
        await spans.stop()
        assert found.sizes == [1]


async def test_a_full_queue_drops_and_counts():
    spans = made("http://127.0.0.1:1/v1/traces")
    for _ in range(QUEUE + 3):
        spans.offer(inbound())
    assert spans.dropped == 3


@pytest.mark.parametrize(
    ("statuses", "taken", "sent", "dropped", "why"),
    [
        ([503], [1], 1, 0, "a batch that was not taken is offered once more"),
        ([503, 503], [], 0, 1, "and then dropped"),
        ([400, 200], [1], 1, 0, "whatever the reason"),
    ],
)
async def test_a_collector_that_refuses(statuses, taken, sent, dropped, why):
    async with collector() as found:
        found.statuses = list(statuses)
        spans = made(found.url)
        spans.start()
        spans.offer(inbound())
        await found.until(lambda: found.requests == 2)
        await spans.stop()
        assert (found.sizes, spans.sent, spans.dropped) == (taken, sent, dropped), why


async def test_a_collector_that_is_away_and_comes_back_gets_what_was_queued():
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        spans = made(f"http://127.0.0.1:{nobody.getsockname()[1]}/v1/traces")
        spans.start()
        spans.offer(inbound())
        async with collector() as found:
            found.statuses = [503]
            spans._url = found.url
            for _ in range(5):
                spans.offer(inbound())
            await found.until(lambda: sum(found.sizes) >= 5)
            await spans.stop()
    assert spans.sent + spans.dropped == 6


async def test_what_nobody_took_in_the_end_is_counted():
    async with collector() as found:
        found.statuses = [503] * 9
        spans = made(found.url)
        spans.start()
        spans.offer(inbound())
        await spans.stop()
    assert (spans.sent, spans.dropped) == (0, 1)


async def test_a_collector_that_hangs_does_not_hold_the_sidecar(monkeypatch):
    monkeypatch.setattr(exporter, "LAST_WORDS", 0.05)
    async with collector() as found:
        found.hold.clear()
        spans = made(found.url)
        spans.start()
        spans.offer(inbound())
        await spans.stop()
        await spans.stop()
        assert found.sizes == []


async def test_it_may_stop_before_it_started():
    await made("http://127.0.0.1:1/v1/traces").stop()
