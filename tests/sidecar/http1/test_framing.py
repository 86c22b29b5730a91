"""Where a body ends, however its bytes are cut: RFC 9112 sections 6.3 and 7.1."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devmesh.sidecar.http1.framing import Body, ChunkedBody, CloseBody, FramingError, LengthBody, NoBody

CHUNKS = st.lists(st.binary(min_size=1, max_size=40), max_size=6)
TRAILERS = st.lists(st.tuples(st.sampled_from([b"x", b"grpc-status"]), st.from_regex(rb"[a-z0-9 ]{0,12}", fullmatch=True)), max_size=3)
EXTENSIONS = st.sampled_from([b"", b";a=b", b" ;name", b"  ", b';q="\\";"'])
ZEROS = st.sampled_from([b"0", b"00", b"0;last", b"0000"])


def encoded(chunks: list[bytes], extension: bytes, last: bytes, trailers: list[tuple[bytes, bytes]]) -> bytes:
    body = b"".join(b"%X%s\r\n%s\r\n" % (len(chunk), extension, chunk) for chunk in chunks)
    return body + last + b"\r\n" + b"".join(name + b": " + value + b"\r\n" for name, value in trailers) + b"\r\n"


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


def taken(body: Body, parts: list[bytes]) -> tuple[int, bool]:
    """How many bytes of all parts are the body's; what is left once it is done stays untouched."""
    total = 0
    for part in parts:
        used = body.feed(part)
        total += used
        if used < len(part):
            break
    return total, body.done


@given(
    chunks=CHUNKS, extension=EXTENSIONS, last=ZEROS, trailers=TRAILERS, behind=st.binary(max_size=20), cuts=st.lists(st.integers(0, 10_000))
)
def test_a_chunked_body_ends_at_the_same_byte_however_it_is_cut(chunks, extension, last, trailers, behind, cuts):
    message = encoded(chunks, extension, last, trailers)
    assert taken(ChunkedBody(), pieces(message + behind, cuts)) == (len(message), True)


@given(data=st.binary(max_size=60), cuts=st.lists(st.integers(0, 10_000)))
def test_bytes_that_are_no_chunks_are_judged_alike_however_they_are_cut(data, cuts):
    def verdict(parts):
        try:
            return taken(ChunkedBody(), parts)
        except FramingError:
            return "refused"

    assert verdict(pieces(data, cuts)) == verdict([bytes((byte,)) for byte in data])


@given(length=st.integers(0, 200), data=st.binary(max_size=300), cuts=st.lists(st.integers(0, 10_000)))
def test_a_body_of_known_length_takes_that_many_bytes(length, data, cuts):
    assert taken(LengthBody(length), pieces(data, cuts)) == (min(length, len(data)), length <= len(data))


@pytest.mark.parametrize(
    "data",
    [
        b"3\nabc\n0\n\n",
        b"3\r\nabcd\r\n",
        b"3\r\nabc0\r\n\r\n",
        b"\r\n",
        b"-3\r\nabc\r\n",
        b"+3\r\nabc\r\n",
        b"0x3\r\nabc\r\n",
        b"3_0\r\n",
        b" 3\r\nabc\r\n",
        b"g\r\n",
        b"11111111111111111\r\n",
        b"3;" + b"a" * 17_000,
        b"0\r\nx: y\n\r\n",
        b"0\r\nGET / HTTP/1.1\r\n",
        b"0\r\nx: y\r\n z\r\n",
        b"0\r\nx : y\r\n",
    ],
)
def test_what_is_no_chunk_is_refused(data):
    with pytest.raises(FramingError):
        taken(ChunkedBody(), [data])


def test_the_end_of_chunks_inside_data_is_data():
    data = b"5\r\n0\r\n\r\n\r\n0\r\n\r\n"
    assert taken(ChunkedBody(), [data]) == (len(data), True)


def test_only_closing_ends_a_body_of_unknown_length():
    body = CloseBody()
    assert taken(body, [b"abc", b"d"]) == (4, False)


def test_no_body_takes_nothing():
    assert taken(NoBody(), [b"abc"]) == (0, True)


@given(chunks=CHUNKS, extension=EXTENSIONS, last=ZEROS, trailers=TRAILERS, cuts=st.lists(st.integers(0, 10_000)))
def test_the_content_of_a_chunked_body_is_counted_without_its_framing(chunks, extension, last, trailers, cuts):
    body = ChunkedBody()
    taken(body, pieces(encoded(chunks, extension, last, trailers), cuts))
    assert body.content == sum(map(len, chunks))
