"""Header lists."""

import pytest

from devmesh.sidecar import message
from devmesh.sidecar.message import RequestHead, ResponseHead, get_header, remove_header, set_header


def test_the_first_value_of_a_name_is_got():
    headers = [(b"a", b"1"), (b"b", b"2"), (b"a", b"3")]
    assert (get_header(headers, b"a"), get_header(headers, b"c")) == (b"1", None)


def test_setting_replaces_every_occurrence_at_the_first_ones_place():
    headers = [(b"x", b"0"), (b"a", b"1"), (b"b", b"2"), (b"a", b"3")]
    set_header(headers, b"a", b"4")
    assert headers == [(b"x", b"0"), (b"a", b"4"), (b"b", b"2")]
    set_header(headers, b"c", b"5")
    assert headers[-1] == (b"c", b"5")


def test_removing_takes_every_occurrence_and_keeps_the_list():
    headers = same = [(b"a", b"1"), (b"b", b"2"), (b"a", b"3")]
    remove_header(headers, b"a")
    assert headers == [(b"b", b"2")]
    assert headers is same


def test_the_path_is_the_target_without_its_query():
    assert RequestHead(b"GET", b"/a?b=/c?d", b"h").path == b"/a"


@pytest.mark.parametrize(
    ("headers", "has"),
    [
        ([(b"x", b"1")], 0),
        ([(b"x", b"1"), (b"connection", b"close")], message.HAS_HOP | message.HAS_CONNECTION),
        ([(b"content-length", b"1")], message.HAS_LENGTH),
        ([(b"content-length", b"1"), (b"content-length", b"1")], message.HAS_LENGTH | message.HAS_LENGTHS),
        ([(b"x-envoy-peer-metadata-id", b"a"), (b"transfer-encoding", b"chunked")], message.HAS_PEER | message.HAS_CODING),
    ],
)
def test_a_head_knows_the_kinds_of_its_fields(headers, has):
    assert ResponseHead(200, headers).has == has
    assert RequestHead(b"GET", b"/", b"a", headers).has == has
