"""What devmesh keeps in the KV: key names, the encoding of a resource, and writes that end with a new generation."""

import gzip
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote, unquote

import orjson

from devmesh.config.model import Resource, ResourceKey
from devmesh.config.topology_types import Topology
from devmesh.errors import DevmeshError
from devmesh.registry.client import Operation, Pair, Registry, check_size
from devmesh.registry.sealed import seal, unseal

ROOT = "devmesh/"
MESH_ID = "devmesh/mesh-id"
GENERATION = "devmesh/generation"
TOPOLOGY = "devmesh/topology"
REMOTES = "devmesh/remotes/"
MESH_CONFIG = "devmesh/mesh-config"
RESOURCES = "devmesh/resources/"
OWNERS = ("mesh", "apply", "fault")
COMPRESSION_LEVEL = 6


@dataclass(frozen=True, slots=True)
class StoredResource:
    """One document as applied.

    `lines` and `columns` map paths such as `spec.http[0]` to their place in `file`; `created` is the KV's index.
    """

    key: ResourceKey
    owner: str
    document: Mapping[str, Any]
    file: str
    lines: Mapping[str, int] = field(default_factory=dict)
    columns: Mapping[str, int] = field(default_factory=dict)
    order: int = 0
    created: int = 0

    @property
    def kv_key(self) -> str:
        return kv_key(self.owner, self.key)

    @classmethod
    def of(cls, resource: Resource, owner: str) -> "StoredResource":
        document = dict(resource.raw) | {"apiVersion": resource.api_version, "kind": resource.key.kind}
        document["metadata"] = dict(document.get("metadata") or {}) | {"name": resource.key.name, "namespace": resource.key.namespace}
        return cls(resource.key, owner, document, resource.file, resource.lines, resource.columns, resource.order)


@dataclass(frozen=True, slots=True)
class Written:
    """What one write did; `conflicts` exist under another owner too."""

    generation: str
    created: tuple[ResourceKey, ...] = ()
    changed: tuple[ResourceKey, ...] = ()
    unchanged: tuple[ResourceKey, ...] = ()
    deleted: tuple[ResourceKey, ...] = ()
    conflicts: tuple[ResourceKey, ...] = ()


def kv_key(owner: str, key: ResourceKey) -> str:
    return RESOURCES + "/".join(quote(part, safe="") for part in (owner, key.group, key.kind, key.namespace, key.name))


def parse_kv_key(text: str) -> tuple[str, ResourceKey]:
    """Owner and resource of a KV key; DevmeshError for a key that is not one of ours."""
    parts = [unquote(part) for part in text.removeprefix(RESOURCES).split("/")]
    if not text.startswith(RESOURCES) or len(parts) != 5:
        raise DevmeshError(f"{text} is not the key of a resource", "devmesh get lists those that are")
    return parts[0], ResourceKey(*parts[1:])


def encode(resource: StoredResource) -> bytes:
    """Gzipped JSON, the same bytes for the same resource. DevmeshError above the registry's limit."""
    body = dict(resource.document) | {
        "source": {"file": resource.file, "lines": dict(resource.lines), "columns": dict(resource.columns), "order": resource.order},
        "owner": resource.owner,
    }
    value = gzip.compress(orjson.dumps(body), COMPRESSION_LEVEL, mtime=0)
    check_size(str(resource.key), value)
    return value


def decode(pair: Pair) -> StoredResource:
    """Read one value back; DevmeshError names the key when somebody else wrote something else there."""
    owner, key = parse_kv_key(pair.key)
    try:
        body = orjson.loads(gzip.decompress(pair.value))
        source = body.pop("source", None) or {}
        body.pop("owner", None)
    except (OSError, EOFError, ValueError, AttributeError) as error:
        raise DevmeshError(f"{pair.key} holds no resource: {error}", f"devmesh delete {key.kind} {key.name} -n {key.namespace}") from error
    return StoredResource(
        key=key,
        owner=owner,
        document=body,
        file=source.get("file", pair.key),
        lines=source.get("lines") or {},
        columns=source.get("columns") or {},
        order=source.get("order") or 0,
        created=pair.create_index,
    )


def sealed(stored: StoredResource, token: str) -> StoredResource:
    """As the registry holds it: no value of a Secret in the clear."""
    return replace(stored, document=seal(stored.key, stored.document, token))


def unsealed(stored: StoredResource, token: str) -> StoredResource:
    """As it was written, for the control plane. Raises DevmeshError when another token sealed it."""
    return replace(stored, document=unseal(stored.key, stored.document, token))


def age(stored: StoredResource) -> tuple[int, int, ResourceKey]:
    return stored.created, stored.order, stored.key


def in_force(resources: Iterable[StoredResource]) -> list[StoredResource]:
    """What counts, oldest first: what was applied stands in the place, and has the age, of what the mesh's own folder has under its name.

    So it is in Kubernetes, where a name is there once and an update keeps `creationTimestamp`; deleting goes for both.
    """
    oldest_first = sorted(resources, key=age)
    applied = {one.key: one for one in oldest_first if one.owner == "apply"}
    out: dict[tuple[str, ResourceKey], StoredResource] = {}
    for one in oldest_first:
        chosen = applied.get(one.key, one) if one.owner in ("apply", "mesh") else one
        out.setdefault((chosen.owner, chosen.key), chosen)
    return list(out.values())


async def list_resources(registry: Registry, owner: str | None = None) -> list[StoredResource]:
    """Read all resources, or one owner's, oldest first (as Istio orders them), and as their files did where of one age."""
    _, pairs = await registry.kv_list(RESOURCES + (f"{owner}/" if owner else ""))
    return sorted((decode(pair) for pair in pairs), key=age)


async def write_resources(registry: Registry, puts: Iterable[StoredResource], deletes: Iterable[tuple[str, ResourceKey]] = ()) -> str:
    """Write and delete, then name a new generation, which is returned: the control plane compiles when it sees it."""
    operations = [Operation(stored.kv_key, encode(sealed(stored, registry.token))) for stored in puts]
    operations += [Operation(kv_key(owner, key), None) for owner, key in deletes]
    generation = str(uuid.uuid4())
    await registry.txn([*operations, Operation(GENERATION, generation.encode())])
    return generation


async def apply_resources(registry: Registry, resources: Sequence[StoredResource]) -> Written:
    """Write these, leave all others alone; says what was new, what changed, and what another owner has too."""
    return await _reconcile(registry, resources, prune=())


async def replace_owner(registry: Registry, owner: str, resources: Sequence[StoredResource]) -> Written:
    """Make the set owned by `owner` equal to `resources`: what is not among them is deleted."""
    return await _reconcile(registry, resources, prune=(owner,))


async def _reconcile(registry: Registry, resources: Sequence[StoredResource], prune: Collection[str]) -> Written:
    _, pairs = await registry.kv_list(RESOURCES)
    present = {pair.key: pair.value for pair in pairs}
    wanted = {stored.kv_key: sealed(stored, registry.token) for stored in resources}
    fresh = [stored for key, stored in wanted.items() if key not in present]
    changed = [stored for key, stored in wanted.items() if key in present and present[key] != encode(stored)]
    owners = [parse_kv_key(key) for key in present]
    gone = [(owner, key) for owner, key in owners if owner in prune and kv_key(owner, key) not in wanted]
    elsewhere = {(key, owner) for owner, key in owners}
    generation = await write_resources(registry, [*fresh, *changed], gone)
    return Written(
        generation=generation,
        created=tuple(stored.key for stored in fresh),
        changed=tuple(stored.key for stored in changed),
        unchanged=tuple(stored.key for stored in wanted.values() if stored not in fresh and stored not in changed),
        deleted=tuple(key for _, key in gone),
        conflicts=tuple(s.key for s in wanted.values() if any((s.key, owner) in elsewhere for owner in OWNERS if owner != s.owner)),
    )


async def delete_resources(registry: Registry, keys: Iterable[tuple[str, ResourceKey]]) -> str:
    return await write_resources(registry, (), keys)


async def write_mesh(registry: Registry, mesh_id: str, topology: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Write what `up` knows before any resource: identity last, because a mesh without identity is taken as lost."""
    await registry.txn(
        [
            Operation(TOPOLOGY, orjson.dumps(topology)),
            Operation(MESH_CONFIG, orjson.dumps(settings)),
            Operation(MESH_ID, mesh_id.encode()),
        ]
    )


async def write_remote(registry: Registry, name: str, topology: Mapping[str, Any]) -> str:
    """Add a remote mesh's services and workloads to the mesh, or replace what it had added; the new generation."""
    return await _change_remote(registry, Operation(REMOTES + quote(name, safe=""), orjson.dumps(topology)))


async def delete_remote(registry: Registry, name: str) -> str:
    """Take a remote mesh's part away again; the new generation."""
    return await _change_remote(registry, Operation(REMOTES + quote(name, safe=""), None))


async def _change_remote(registry: Registry, operation: Operation) -> str:
    generation = str(uuid.uuid4())
    await registry.txn([operation, Operation(GENERATION, generation.encode())])
    return generation


async def read_topology(registry: Registry, without: str = "") -> Topology:
    """Read the mesh's services and workloads, those of remote meshes (but the one called `without`) among them."""
    _, pairs = await registry.kv_list(REMOTES)
    remotes = [Topology.from_json(orjson.loads(pair.value)) for pair in pairs if pair.key != REMOTES + quote(without, safe="")]
    return Topology.from_json(await read_json(registry, TOPOLOGY) or {}).joined(remotes)


async def read_json(registry: Registry, key: str) -> Any:
    """Read one JSON value; None when the key is missing."""
    _, pair = await registry.kv_get(key)
    return orjson.loads(pair.value) if pair else None
