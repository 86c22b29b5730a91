import pytest

from devmesh.cli.fault import fault_names
from devmesh.cli.options import seconds, service_names
from devmesh.errors import UsageError


@pytest.mark.parametrize(("text", "expected"), [("300ms", 0.3), ("2s", 2.0), ("1m30s", 90.0), ("1.5h", 5400.0), ("0s", 0.0)])
def test_durations_are_read_as_in_yaml(text, expected):
    assert seconds(text, "--for") == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "1", "s", "-1s", "1d"])
def test_what_is_no_duration_names_the_option_and_says_what_one_is(text):
    with pytest.raises(UsageError) as caught:
        seconds(text, "--for")
    assert f"--for {text!r} is no duration" in str(caught.value)
    assert "--for 1m30s" in caught.value.hint


def test_where_no_mesh_is_up_nothing_is_completed_and_nothing_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert service_names() == fault_names() == []
    (tmp_path / "compose.yaml").touch()
    assert service_names() == fault_names() == []
    assert capsys.readouterr() == ("", "")
