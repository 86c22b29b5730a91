from hypothesis import given
from hypothesis import strategies as st

from devmesh.pods.wire import MAX_DATAGRAM, MAX_ITEMS, decode_answers, decode_requests, encode_answers, encode_requests

IDS = st.integers(0, 2**32 - 1)


@given(st.lists(st.tuples(IDS, st.integers(0, 65535)), max_size=MAX_ITEMS))
def test_requests_survive_the_way(requests):
    data = encode_requests(requests)
    assert decode_requests(data) == requests
    assert len(data) <= MAX_DATAGRAM


@given(st.lists(st.tuples(IDS, st.integers(0, 133)), max_size=MAX_ITEMS))
def test_answers_survive_the_way(answers):
    data = encode_answers(answers)
    assert decode_answers(data) == answers
    assert len(data) <= MAX_DATAGRAM
