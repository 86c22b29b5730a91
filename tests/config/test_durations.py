import pytest

from devmesh.config.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("0.5s", 0.5),
        ("1m30s", 90.0),
        ("1h", 3600.0),
        ("300ms", 0.3),
        ("1.5h", 5400.0),
        ("250us", 0.00025),
        ("0", 0.0),
        ("-2s", -2.0),
        (".5s", 0.5),
    ],
)
def test_durations_are_gos(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "1", "s", "1 s", "1d", "1s2", "1,5s", "--1s"])
def test_what_is_no_duration_is_said(text):
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(10.0, "10s"), (0.5, "0.500s"), (0.025, "0.025s"), (1.0000005, "1.000000500s"), (0.00025, "0.000250s")]
)
def test_durations_are_written_as_protobufs_json_writes_them(seconds, text):
    assert format_duration(seconds) == text
