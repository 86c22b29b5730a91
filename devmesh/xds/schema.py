"""Resources held against the official protobuf descriptors (proto-JSON, protobuf.dev "ProtoJSON Format"), in a private descriptor pool.

Imported by the control plane only, and when the first resource is made: it needs protobuf. `descriptors.binpb.gz` holds the descriptors of
the Envoy and Istio that the square asks (`tests/oracle/descriptors` writes it).
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import re
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

import orjson
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from devmesh.xds.rest import TYPE_URLS
from devmesh.xds.snapshot import Encoded, Snapshot

DESCRIPTORS = "descriptors.binpb.gz"
PREFIX = "type.googleapis.com/"
REMEMBERED = 20_000
# What is valid, by type and digest of its JSON (1 is not true there, nor changed in place the same): an apply validates what is new.
_valid: dict[tuple[str, bytes], None] = {}
STEPS = re.compile(r"(?:Failed to parse (\w+) field: )*")
CAMEL_CASE = re.compile(rb'"\w*[A-Z]\w*":')  # the key of a map may be written so: only what has one is looked at closer
WHERE = re.compile(r' at "?(?P<path>[A-Z]\w*[\w.\[\]]*?)"?\.*$')


class SchemaError(Exception):
    """A resource that its type's descriptor does not allow. `path` is the place in it, as in `Listener.filter_chains[0]`."""

    def __init__(self, type_url: str, name: str, path: str, reason: str) -> None:
        super().__init__(": ".join(part for part in (f"{type_url.rpartition('.')[2]} {name}", path, reason) if part))
        self.type_url, self.name, self.path, self.reason = type_url, name, path, reason


def validate(type_url: str, resource: Mapping[str, Any]) -> None:
    """Raise SchemaError for an unknown field or type, a value of another type, or an enum value that does not exist; Anys included.

    A field has the name of the descriptor: protobuf would take `bindToPort` for `bind_to_port`, which our sidecar does not know.
    """
    _validate(type_url, resource, Encoded.of(resource).digest)


def invalid(snapshot: Snapshot) -> list[SchemaError]:
    """What `validate` says of every resource of a snapshot."""
    out = []
    for kind, found in snapshot.resources.items():
        for resource, encoded in zip(found, snapshot.encoded[kind], strict=True):
            try:
                _validate(TYPE_URLS[kind], resource, encoded.digest)
            except SchemaError as error:
                out.append(error)
    return out


def encode(type_url: str, resource: Mapping[str, Any]) -> bytes:
    """The resource in the binary format, for an Any of `type_url`; equal resources give equal bytes. Raises SchemaError."""
    return _message(type_url, resource).SerializeToString(deterministic=True)


def _validate(type_url: str, resource: Mapping[str, Any], digest: bytes) -> None:
    """Part by part: of a table with a hundred hosts, one is new."""
    if (type_url, digest) in _valid:
        return
    descriptor = _descriptor(type_url, resource)
    parts = _parts(descriptor, resource)
    for field, kind in parts.items():
        for index, part in enumerate(resource[field]):
            try:
                _validate_whole(PREFIX + kind.full_name, part)
            except SchemaError as error:
                place = _below(f"{descriptor.name}.{field}[{index}]", error.path)
                raise SchemaError(type_url, _name(resource), place, error.reason) from error
    _validate_whole(type_url, {key: value for key, value in resource.items() if key not in parts})
    _remember(type_url, digest)


def _validate_whole(type_url: str, resource: Mapping[str, Any]) -> None:
    text = orjson.dumps(resource, option=orjson.OPT_SORT_KEYS)
    digest = hashlib.sha256(text).digest()
    if (type_url, digest) in _valid:
        return
    _message(type_url, resource)
    if CAMEL_CASE.search(text):
        descriptor = _descriptor(type_url, resource)
        for path, wanted in _misnamed(descriptor, resource, descriptor.name):
            raise SchemaError(type_url, _name(resource), path, f'the field\'s name is "{wanted}"')
    _remember(type_url, digest)


def _remember(type_url: str, digest: bytes) -> None:
    _valid[type_url, digest] = None
    if len(_valid) > REMEMBERED:
        del _valid[next(iter(_valid))]


def _parts(descriptor: Descriptor, resource: Mapping[str, Any]) -> dict[str, Descriptor]:
    """The fields of it that hold lists of messages; an Any says itself of what type it is and is left with the rest."""
    lists = {key: value for key, value in resource.items() if isinstance(value, list) and all(isinstance(one, dict) for one in value)}
    kinds = {key: descriptor.fields_by_name[key].message_type for key in lists if key in descriptor.fields_by_name}
    return {key: kind for key, kind in kinds.items() if kind is not None and kind.file.package != "google.protobuf"}


def _below(place: str, path: str) -> str:
    """A path in a part, whose first word is the part's type, as a path in the whole."""
    head, _, rest = path.partition(".")
    return ".".join(filter(None, (place, rest if head[:1].isupper() else path)))


def _descriptor(type_url: str, resource: Mapping[str, Any]) -> Descriptor:
    try:
        return pool().FindMessageTypeByName(type_url.rpartition("/")[2])
    except KeyError as error:
        raise SchemaError(type_url, _name(resource), "", "this type is not known") from error


def _message(type_url: str, resource: Mapping[str, Any]) -> Message:
    descriptor = _descriptor(type_url, resource)
    fields = {key: value for key, value in resource.items() if key != "@type"}
    try:
        return json_format.ParseDict(fields, GetMessageClass(descriptor)(), descriptor_pool=pool())
    except (json_format.ParseError, TypeError) as error:  # TypeError: an Any of a type that the pool does not hold
        raise SchemaError(type_url, _name(resource), *_read(str(error).partition("\n")[0])) from error


def _name(resource: Mapping[str, Any]) -> str:
    return str(resource.get("name") or resource.get("cluster_name") or "")


def _misnamed(descriptor: Descriptor, value: Any, path: str) -> Iterator[tuple[str, str]]:
    """(path, name) of every field of a message in proto-JSON that has not the name of the descriptor."""
    if not isinstance(value, dict) or (descriptor.file.package == "google.protobuf" and descriptor.name != "Any"):
        return
    if "@type" in value:
        descriptor = pool().FindMessageTypeByName(value["@type"].rpartition("/")[2])
    for key, one in value.items():
        field = descriptor.fields_by_name.get(key)
        if field is not None:
            yield from _inside(field, one, f"{path}.{key}")
        elif key != "@type" and descriptor.file.package != "google.protobuf":
            yield f"{path}.{key}", next(known.name for known in descriptor.fields if known.json_name == key)


def _inside(field: FieldDescriptor, value: Any, path: str) -> Iterator[tuple[str, str]]:
    kind = field.message_type
    if kind is None:
        return
    if kind.GetOptions().map_entry:
        of_value = kind.fields_by_name["value"]
        for key, one in value.items():
            yield from _inside(of_value, one, f"{path}[{key}]")
    else:
        for index, one in enumerate(value if isinstance(value, list) else ()):
            yield from _misnamed(kind, one, f"{path}[{index}]")
        yield from _misnamed(kind, value, path)


def _read(text: str) -> tuple[str, str]:
    """The path and the reason of protobuf's message; where it names no path, the fields that it was parsing."""
    steps = STEPS.match(text)
    reason = text[steps.end() :] if steps is not None else text
    place = WHERE.search(reason)
    if place is not None:
        return place["path"], reason[: place.start()]
    return ".".join(re.findall(r"Failed to parse (\w+) field", text)), reason.rstrip(".")


@functools.cache
def pool() -> DescriptorPool:
    """The descriptors, in a pool of their own: nothing that another library registers can meet them."""
    raw = gzip.decompress(resources.files("devmesh.xds").joinpath(DESCRIPTORS).read_bytes())
    out = DescriptorPool()
    for file in FileDescriptorSet.FromString(raw).file:
        out.Add(file)
    return out
