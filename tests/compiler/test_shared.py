"""Proto-JSON pieces."""

import pytest

from devmesh.compiler.shared import million
from devmesh.config.durations import format_duration


@pytest.mark.parametrize(("value", "text"), [(0, "0s"), (3, "3s"), (0.5, "0.500s"), (0.00025, "0.000250s"), (1e-9, "0.000000001s")])
def test_durations_have_no_fraction_or_three_six_or_nine_digits(value, text):
    assert format_duration(value) == text


def test_a_percentage_is_in_millionths_and_zero_is_left_out():
    assert million(12.5) == {"numerator": 125000, "denominator": "MILLION"}
    assert million(0) == {"denominator": "MILLION"}
