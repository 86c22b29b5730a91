import pytest
from pydantic import ValidationError

from devmesh.config.istio_networking import HTTPBody, HTTPRetry, StringMatch, TCPSettings
from devmesh.config.istio_types import json_name
from tests.config.more_cases import DURATIONS
from tests.config.verdicts import check


def test_names_are_protobufs_json_names():
    assert json_name("http1_max_pending_requests") == "http1MaxPendingRequests"
    assert json_name("consecutive_5xx_errors") == "consecutive5xxErrors"
    assert json_name("from_") == "from"


@pytest.mark.parametrize("text", ["0s", "0.5ms", "1.0005s", "-1s"])
def test_a_duration_is_at_least_a_millisecond_and_no_finer(text):
    with pytest.raises(ValidationError, match=r"1ms|ms precision|negative"):
        HTTPRetry.model_validate({"perTryTimeout": text})


def test_zero_turns_the_tcp_idle_timeout_off():
    assert TCPSettings.model_validate({"idleTimeout": "0s"}).idle_timeout == 0.0


@pytest.mark.parametrize("case", DURATIONS, ids=lambda case: case.spec)
def test_each_fields_own_rule_for_durations_holds(case):
    check(case)


def test_of_a_oneof_only_one_may_be_set():
    with pytest.raises(ValidationError, match="only one of exact, regex may be set"):
        StringMatch.model_validate({"exact": "a", "regex": "b"})


def test_bytes_come_as_base64():
    assert HTTPBody.model_validate({"bytes": "aGk="}).bytes_ == b"hi"
    with pytest.raises(ValidationError, match="not base64"):
        HTTPBody.model_validate({"bytes": "%"})


def test_messages_are_frozen_and_know_no_other_field():
    with pytest.raises(ValidationError):
        StringMatch(exact="a").exact = "b"
    with pytest.raises(ValidationError):
        StringMatch.model_validate({"suffix": "a"})
