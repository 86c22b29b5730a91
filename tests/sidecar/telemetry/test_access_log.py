import json

import pytest

from devmesh.sidecar.record import Flag
from devmesh.sidecar.telemetry.access_log import fields, json_line, start_time, text_line
from tests.sidecar.telemetry.records import CLUSTER, START, outbound


def test_a_line_is_istios_default_format():
    record = outbound(transport_failure="TLS_error", termination_details="t", requested_server_name="sni", flags=Flag.URX | Flag.UF)
    assert text_line(record).decode() == (
        '[2023-11-14T22:13:20.123Z] "GET /reviews/0?u=1 HTTP/1.1" 200 URX,UF via_upstream t "TLS_error" 7 1234 12 11 "10.0.0.9" "curl/8" '
        f'"b71d7bb7-6c6e-4d53-99a1-d2258423b650" "reviews:9080" "127.7.0.3:9080" {CLUSTER} 127.0.0.1:5000 240.240.0.1:9080 '
        "127.0.0.1:4000 sni default\n"
    )


def test_what_is_missing_is_a_dash():
    record = outbound(
        method=b"",
        target=b"",
        authority=b"",
        request_headers=[],
        status=400,
        flags=Flag.DPE,
        details="http1.codec_error",
        duration=0.0,
        upstream_service_time=None,
        bytes_received=0,
        bytes_sent=11,
        upstream_host="",
        upstream_cluster="",
        upstream_local="",
        route_name="",
        request_id=b"",
    )
    assert text_line(record).decode() == (
        '[2023-11-14T22:13:20.123Z] "- - HTTP/1.1" 400 DPE http1.codec_error - "-" 0 11 0 - "-" "-" "-" "-" "-" - - 240.240.0.1:9080 127.0.0.1:4000 - -\n'
    )


def test_json_has_the_same_fields_with_numbers_as_numbers_and_nulls():
    line = json_line(outbound(upstream_service_time=None))
    assert line.endswith(b"}\n")
    found = json.loads(line)
    assert found == fields(outbound(upstream_service_time=None))
    assert (found["response_code"], found["duration"], found["upstream_service_time"], found["route_name"]) == (200, 12, None, "default")


@pytest.mark.parametrize(
    ("nanoseconds", "text", "why"),
    [
        (START, "2023-11-14T22:13:20.123Z", "milliseconds are cut"),
        (START // 10**9 * 10**9 + 999_999_999, "2023-11-14T22:13:20.999Z", "never rounded up"),
        (0, "1970-01-01T00:00:00.000Z", "the beginning"),
        (4_102_444_799_001_000_000, "2099-12-31T23:59:59.001Z", "no float loses digits"),
    ],
)
def test_the_start_time(nanoseconds, text, why):
    assert start_time(nanoseconds) == text, why


def test_bytes_of_a_client_are_one_line_whatever_they_are():
    record = outbound(target=b"/\xff%0a", request_headers=[(b"user-agent", b"a\xe9b")])
    line = text_line(record)
    assert line.count(b"\n") == 1
    assert b"/\xff%0a" in line
    assert b'"user_agent":"a\\u00e9b"' in json_line(record)


def test_what_is_utf_8_stays_it():
    record = outbound(request_headers=[(b"user-agent", "é".encode())], route_name="ü")
    assert '"é"'.encode() in text_line(record)
    assert text_line(record).endswith(" ü\n".encode())
    assert '"user_agent":"é"'.encode() in json_line(record)
    assert json.loads(json_line(record))["route_name"] == "ü"


def test_json_has_its_keys_in_the_alphabets_order():
    found = list(json.loads(json_line(outbound())))
    assert found == sorted(found)


def test_a_header_that_is_there_and_empty_is_no_dash():
    record = outbound(authority=b"", request_headers=[(b"host", b""), (b"user-agent", b"")])
    assert (fields(record)["authority"], fields(record)["user_agent"]) == ("", "")
