"""What telemetry is told."""

from devmesh.sidecar.record import Direction, Flag, Record


def test_flags_add_up_and_none_is_nothing():
    flags = Flag.NONE | Flag.UT | Flag.URX
    assert (bool(Flag.NONE), Flag.UT in flags, Flag.URX in flags, Flag.DC in flags) == (False, True, True, False)


def test_every_flag_is_one_bit_of_its_own():
    assert all(flag.value & (flag.value - 1) == 0 for flag in Flag)
    assert len({flag.value for flag in Flag}) == len(list(Flag))


def test_records_share_nothing():
    first, second = Record(Direction.INBOUND, 1), Record(Direction.INBOUND, 2)
    first.attempts.append(None)  # type: ignore[arg-type]
    first.request_headers.append((b"a", b"b"))
    assert (second.attempts, second.request_headers) == ([], [])
