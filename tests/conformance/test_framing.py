"""Bodies go on whole whoever would take out what says where they end, through our sidecar and through Envoy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conformance.test_random_bytes import heard

Json = dict[str, Any]
BODY = b"GET /evil HTTP/1.1\r\nhost: a\r\n\r\n"  # whoever takes it for a request has lost track
SIZED = b"content-length: %d\r\n\r\n%b" % (len(BODY), BODY)
CHUNKED = b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)


def post(*lines: bytes, rest: bytes) -> bytes:
    return b"POST / HTTP/1.1\r\nhost: a\r\n" + b"".join(line + b"\r\n" for line in lines) + rest


async def bodies(which: str, directory: Path, sent: list[bytes], edits: Json) -> list[Any]:
    """What the app took for requests with each of these: method and body, however that was framed."""
    out = []
    for one in await heard(which, directory, sent, [], edits):
        assert [answer[0] for answer in one["answered"][0]] == [b"HTTP/1.1 200 OK"] * 2, "and the one behind it"
        out.append([(line.split(b" ")[0], body[0] if isinstance(body, tuple) else body) for line, _, body in one["app"]])
    return out


@pytest.mark.parametrize("which", ["ours", "envoy"])
@pytest.mark.parametrize(
    ("named", "edits"),
    [
        (b"connection: Content-Length, transfer-encoding", {}),
        (b"x: y", {"request_headers_to_remove": ["content-length", "transfer-encoding"]}),
        (b"x: y", {"response_headers_to_remove": ["content-length", "transfer-encoding"]}),
        (b"x: y", {"response_headers_to_add": [{"header": {"key": "transfer-encoding", "value": "chunked"}}]}),
    ],
    ids=["named by Connection", "taken out of requests", "taken out of answers", "added to answers"],
)
async def test_a_body_stays_one_whoever_takes_out_what_frames_it(which: str, named: bytes, edits: Json, tmp_path: Path) -> None:
    sent = [post(named, rest=SIZED), post(named, rest=CHUNKED)]
    assert await bodies(which, tmp_path, sent, edits) == [[(b"POST", BODY)]] * 2


@pytest.mark.parametrize("edited", ["content-length", "Transfer-Encoding"])
async def test_a_route_that_sets_what_frames_a_body_changes_nothing(edited: str, tmp_path: Path) -> None:
    value = {"key": edited, "value": "3" if edited == "content-length" else "gzip"}
    edits = {
        f"{which}_headers_to_add": [{"header": value, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}] for which in ("request", "response")
    }
    assert await bodies("ours", tmp_path, [post(rest=SIZED), post(rest=CHUNKED)], edits) == [[(b"POST", BODY)]] * 2
