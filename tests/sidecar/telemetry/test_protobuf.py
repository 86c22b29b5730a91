import pytest
from google.protobuf.struct_pb2 import Struct
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from devmesh.sidecar.telemetry.protobuf import attribute, fixed32, fixed64, message, number, read_fields, read_varint, varint


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**31, 2**63 - 1, 2**64 - 1])
def test_a_varint_is_read_back(value):
    assert read_varint(varint(value), 0) == (value, len(varint(value)))


def test_fields_are_read_by_the_real_library():
    span = Span.FromString(message(5, b"name") + number(6, 3) + fixed64(7, 2**63) + fixed32(16, 0x301) + message(1, b"i" * 200))
    assert (span.name, span.kind, span.start_time_unix_nano, span.flags, span.trace_id) == ("name", 3, 2**63, 0x301, b"i" * 200)


@pytest.mark.parametrize(
    ("value", "kind", "why"),
    [
        ("text", "string_value", "text"),
        ("é" * 200, "string_value", "long text of more than ASCII"),
        (5, "int_value", "a number"),
        (-1, "int_value", "a negative one is ten bytes"),
        (2**62, "int_value", "a large one"),
        (True, "bool_value", "a truth is no number"),
    ],
)
def test_an_attribute_is_read_by_the_real_library(value, kind, why):
    found = KeyValue.FromString(next(payload for _, payload in read_fields(attribute(9, "k", value))))
    assert found.key == "k"
    assert found.value.WhichOneof("value") == kind, why
    assert getattr(found.value, kind) == value, why


def test_fields_of_a_real_message_are_read():
    struct = Struct()
    struct.update({"a": "b"})
    entry = dict(read_fields(dict(read_fields(struct.SerializeToString()))[1]))
    assert entry[1] == b"a"
    assert dict(read_fields(entry[2])) == {3: b"b"}


@pytest.mark.parametrize(
    ("data", "error", "why"),
    [
        (b"\x0a\x05ab", ValueError, "cut short"),
        (b"\x08\x01", ValueError, "not length-delimited"),
        (b"\x0a\x80", IndexError, "a cut varint"),
        (b"\xff" * 60_000, ValueError, "a varint without end"),
    ],
)
def test_what_is_no_such_message_is_refused(data, error, why):
    with pytest.raises(error):
        list(read_fields(data))
    assert why
