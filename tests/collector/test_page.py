"""The trace page in a real browser: Chromium draws the list and the waterfall that its script makes."""

from __future__ import annotations

import asyncio
import os
import re
import time

import aiohttp
import pytest

from tests.collector.sample import TRACE, attribute, collector, request, span
from tests.support import require

START = time.time_ns()
FRONT, CALL, BACK = "00000000000000f1", "00000000000000f2", "00000000000000b1"


@pytest.fixture(scope="module")
def browser():
    return require.browser()


async def drawn(browser, profile, url):
    """The document after its script has run."""
    arguments = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=5000",
        f"--user-data-dir={profile}",
        "--dump-dom",
        url,
    ]
    environment = {**os.environ, "HOME": str(profile)}
    process = await asyncio.create_subprocess_exec(
        str(browser), *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, env=environment
    )
    text, _ = await asyncio.wait_for(process.communicate(), 60)
    return text.decode()


def text_of(document):
    """What is read: the main part without its markup."""
    return re.sub(r"<[^>]*>", " ", document.partition("<main")[2].partition("</main>")[0])


async def test_chromium_draws_the_list_and_the_waterfall(browser, tmp_path):
    failed = {"status": {"code": 2, "message": "no stars"}, "attributes": [attribute("devmesh.fault", "ratings-1")], "parentSpanId": CALL}
    trace = request(
        front=[
            span(FRONT, "GET /<b>page</b>", START, 0.1, kind=2),
            span(CALL, "GET", START + 10_000_000, 0.05, kind=3, parentSpanId=FRONT),
        ],
        ratings=[span(BACK, "GET /ratings", START + 20_000_000, 0.02, kind=2, **failed)],
    )
    async with collector() as urls, aiohttp.ClientSession() as session:
        async with session.post(urls.otlp, json=trace) as answer:
            assert answer.status == 200
        listed = await drawn(browser, tmp_path, urls.query + "/")
        waterfall = await drawn(browser, tmp_path, f"{urls.query}/#{TRACE}")
    assert re.search(r"front\s+GET /&lt;b&gt;page&lt;/b&gt;\s+error\s+front\s+ratings\s+3\s+100\.0 ms", text_of(listed)), text_of(listed)
    rows = waterfall.partition("<main")[2]
    assert [float(one) for one in re.findall(r"padding-left: ([\d.]+)rem", rows)] == [0.6, 1.6, 2.6], "each span below its parent"
    assert re.findall(r'class="bar(?: bad)?" style="left: (\d+)%; width: (\d+)%', rows) == [("0", "100"), ("10", "50"), ("20", "20")]
    assert rows.count('class="bar bad"') == 1
