import pytest

from devmesh.sidecar.config import ConfigError
from devmesh.sidecar.config_common import limit, optional_number, refuse, seconds


@pytest.mark.parametrize(
    ("text", "expected", "why"),
    [
        ("0.5s", 0.5, "a fraction"),
        ("15s", 15.0, "whole seconds"),
        ("0.000000001s", 1e-9, "nanoseconds are the finest"),
        ("0s", 0.0, "zero is a duration"),
        (None, 7.0, "an absent one is the default"),
    ],
)
def test_a_duration_is_read(text, expected, why):
    assert seconds(text, 7.0) == expected, why


@pytest.mark.parametrize("text", ["", "s", "5", "-1s", "1e3s", "nans", "infs", "1.5ms", "1 s"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="is not a duration"):
        seconds(text)


def test_a_limit_of_zero_is_no_limit():
    assert limit("0s", 5.0) is None
    assert limit("2s", 5.0) == 2.0
    assert limit(None, 5.0) == 5.0


def test_a_64_bit_number_may_be_a_string():
    assert optional_number("1024") == 1024
    assert optional_number(None) is None


def test_an_unread_field_is_refused_by_name_unless_it_is_empty():
    with pytest.raises(ConfigError, match=r"^table/host: route\.hedge_policy is not supported$"):
        refuse("table/host", {"hedge_policy": {"initial_requests": 2}}, ["hedge_policy"], "route.")
    refuse("table/host", {"hedge_policy": {}}, ["hedge_policy"])
