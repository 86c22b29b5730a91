"""What the embedded registry knows, as a pure state machine: records in, answers out; time is an argument."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from devmesh.errors import DevmeshError

STATUSES = frozenset({"passing", "warning", "critical"})
# Deletions are remembered, so that a watch on a prefix wakes; Consul forgets them after 15 minutes, we after this many.
MAX_TOMBSTONES = 10_000


@dataclass(frozen=True, slots=True)
class KvEntry:
    key: str
    value: bytes
    flags: int = 0
    create_index: int = 0
    modify_index: int = 0


@dataclass(frozen=True, slots=True)
class KvGone:
    key: str
    index: int


@dataclass(frozen=True, slots=True)
class Service:
    id: str
    name: str
    address: str = ""
    port: int = 0
    tags: tuple[str, ...] = ()
    meta: dict[str, str] = field(default_factory=dict)
    tagged_addresses: dict[str, dict[str, str | int]] = field(default_factory=dict)
    create_index: int = 0
    modify_index: int = 0


@dataclass(frozen=True, slots=True)
class ServiceGone:
    id: str
    index: int


@dataclass(frozen=True, slots=True)
class HttpProbe:
    """Durations in seconds."""

    url: str
    interval: float
    timeout: float = 10.0
    method: str = "GET"


@dataclass(frozen=True, slots=True)
class Check:
    """`ttl` and `deregister_after` in seconds; 0 means none."""

    id: str
    name: str
    service_id: str = ""
    service_name: str = ""
    status: str = "critical"
    output: str = ""
    notes: str = ""
    ttl: float = 0.0
    http: HttpProbe | None = None
    deregister_after: float = 0.0
    create_index: int = 0
    modify_index: int = 0

    @property
    def kind(self) -> str:
        if self.ttl:
            return "ttl"
        return "http" if self.http else ""


@dataclass(frozen=True, slots=True)
class CheckGone:
    id: str
    index: int


@dataclass(frozen=True, slots=True)
class Counters:
    """Where the indexes were when a journal was rewritten: what is gone without a trace has moved them too."""

    kv_index: int
    service_index: int


Record = KvEntry | KvGone | Service | ServiceGone | Check | CheckGone | Counters


@dataclass(frozen=True, slots=True)
class KvOperation:
    """One operation of a transaction, with Consul's verbs."""

    verb: str
    key: str
    value: bytes = b""
    flags: int = 0
    index: int = 0


class TransactionError(DevmeshError):
    """The transaction was rolled back; `position` says which operation failed."""

    def __init__(self, position: int, message: str) -> None:
        super().__init__(message, "devmesh logs registry")
        self.position = position


class UnknownCheckError(DevmeshError):
    """Nobody registered that check, or not with a TTL."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "devmesh logs registry")


class Store:
    """Every mutation returns the records it made (already applied); the caller journals them and wakes the waiters."""

    def __init__(self) -> None:
        self.index = 1
        self.kv: dict[str, KvEntry] = {}
        self.services: dict[str, Service] = {}
        self.checks: dict[str, Check] = {}
        self.kv_index = 1
        self.service_index = 1
        self._tombstones: dict[str, int] = {}
        self._deadlines: dict[str, float] = {}
        self._critical_since: dict[str, float] = {}

    # Reading

    def kv_under(self, prefix: str) -> list[KvEntry]:
        return [self.kv[key] for key in sorted(self.kv) if key.startswith(prefix)]

    def kv_index_of(self, prefix: str, *, recurse: bool) -> int:
        """Give the last change at a key or under a prefix; where nothing ever was, the last change of all, as Consul does."""
        hits = [entry.modify_index for key, entry in self.kv.items() if key == prefix or (recurse and key.startswith(prefix))]
        hits += [index for key, index in self._tombstones.items() if key == prefix or (recurse and key.startswith(prefix))]
        return max(hits, default=self.kv_index)

    def instances(self, name: str) -> list[Service]:
        return sorted((service for service in self.services.values() if service.name == name), key=lambda service: service.id)

    def checks_of(self, service: Service) -> list[Check]:
        return [check for check in self.checks.values() if check.service_id == service.id]

    # Writing the KV

    def kv_put(self, key: str, value: bytes, *, flags: int = 0, cas: int | None = None) -> list[Record] | None:
        """None when `cas` does not match (0: the key must not exist)."""
        return self._conditional(KvOperation("set" if cas is None else "cas", key, value, flags, cas or 0))

    def kv_delete(self, key: str, *, recurse: bool = False, cas: int | None = None) -> list[Record] | None:
        verb = "delete-tree" if recurse else "delete" if cas is None else "delete-cas"
        return self._conditional(KvOperation(verb, key, index=cas or 0))

    def _conditional(self, operation: KvOperation) -> list[Record] | None:
        try:
            return self.transact([operation])[0]
        except TransactionError:
            return None

    def transact(self, operations: Sequence[KvOperation]) -> tuple[list[Record], list[KvEntry]]:
        """All or nothing: the records made and what the reads and writes answer. TransactionError names the operation that failed."""
        draft = _Draft(dict(self.kv), self.index + 1)
        for position, operation in enumerate(operations):
            draft.run(position, operation)
        self.apply(draft.records)
        return draft.records, draft.results

    # Services and checks

    def register(self, service: Service, checks: Sequence[Check], now: float) -> list[Record]:
        index = self.index + 1
        old = self.services.get(service.id)
        records: list[Record] = [replace(service, create_index=old.create_index if old else index, modify_index=index)]
        records += [self._check_record(check, index) for check in checks]
        self.apply(records)
        for check in checks:
            self._touch(check.id, now)
        return records

    def add_check(self, check: Check, now: float) -> list[Record]:
        records: list[Record] = [self._check_record(check, self.index + 1)]
        self.apply(records)
        self._touch(check.id, now)
        return records

    def _check_record(self, check: Check, index: int) -> Check:
        old = self.checks.get(check.id)
        return replace(check, create_index=old.create_index if old else index, modify_index=index)

    def deregister(self, service_id: str) -> list[Record]:
        if service_id not in self.services:
            return []
        index = self.index + 1
        records: list[Record] = [CheckGone(check.id, index) for check in self.checks_of(self.services[service_id])]
        records.append(ServiceGone(service_id, index))
        self.apply(records)
        return records

    def remove_check(self, check_id: str) -> list[Record]:
        if check_id not in self.checks:
            return []
        records: list[Record] = [CheckGone(check_id, self.index + 1)]
        self.apply(records)
        return records

    def report(self, check_id: str, status: str, output: str, now: float, *, kind: str = "ttl") -> list[Record]:
        """Take a TTL report or a probe's result; no record (so no wake-up) when nothing but the deadline moved."""
        check = self.checks.get(check_id)
        if check is None or check.kind != kind:
            raise UnknownCheckError(f'CheckID "{check_id}" does not have associated TTL')
        self._deadlines[check_id] = now + check.ttl
        return self._set_status(check, status, output, now)

    def sweep(self, now: float) -> list[Record]:
        """Expires TTLs and reaps services whose checks stayed critical for their `deregister_after`."""
        records: list[Record] = []
        for check in [check for check in self.checks.values() if check.ttl]:
            if self._deadlines.setdefault(check.id, now + check.ttl) <= now and check.status != "critical":
                records += self._set_status(check, "critical", "TTL expired", now)
        for check in list(self.checks.values()):
            since = self._critical_since.get(check.id, now)
            if check.deregister_after and check.status == "critical" and now - since >= check.deregister_after:
                records += self.deregister(check.service_id)
        return records

    def _set_status(self, check: Check, status: str, output: str, now: float) -> list[Record]:
        if (check.status, check.output) == (status, output):
            return []
        if status == "critical" != check.status:
            self._critical_since[check.id] = now
        records: list[Record] = [replace(check, status=status, output=output, modify_index=self.index + 1)]
        self.apply(records)
        return records

    def _touch(self, check_id: str, now: float) -> None:
        self._deadlines[check_id] = now + self.checks[check_id].ttl
        self._critical_since[check_id] = now

    # Records

    def apply(self, records: Iterable[Record]) -> None:
        for record in records:
            self._apply(record)

    def _apply(self, record: Record) -> None:
        match record:
            case KvEntry():
                self.kv[record.key] = record
                self._tombstones.pop(record.key, None)
                self._kv_moved(record.modify_index)
            case KvGone():
                self.kv.pop(record.key, None)
                self._bury(record)
            case Service():
                self.services[record.id] = record
                self._moved(record.modify_index)
            case ServiceGone():
                self.services.pop(record.id, None)
                self._moved(record.index)
            case Check():
                self.checks[record.id] = record
                self._moved(record.modify_index)
            case CheckGone():
                for table in (self.checks, self._deadlines, self._critical_since):
                    table.pop(record.id, None)
                self._moved(record.index)

            case Counters():
                self._kv_moved(record.kv_index)
                self._moved(record.service_index)

    def _moved(self, index: int) -> None:
        self.service_index = max(self.service_index, index)
        self.index = max(self.index, index)

    def _kv_moved(self, index: int) -> None:
        self.kv_index = max(self.kv_index, index)
        self.index = max(self.index, index)

    def _bury(self, record: KvGone) -> None:
        self._tombstones[record.key] = record.index
        if len(self._tombstones) > MAX_TOMBSTONES:
            self._tombstones.pop(next(iter(self._tombstones)))
        self._kv_moved(record.index)

    def records(self) -> Iterator[Record]:
        """Give the shortest journal that leads here, tombstones included."""
        yield from self.kv.values()
        yield from (KvGone(key, index) for key, index in self._tombstones.items())
        yield from self.services.values()
        yield from self.checks.values()
        yield Counters(self.kv_index, self.service_index)


class _Draft:
    """A transaction on a copy of the KV table, one index for all its writes."""

    def __init__(self, kv: dict[str, KvEntry], index: int) -> None:
        self.kv = kv
        self.index = index
        self.records: list[Record] = []
        self.results: list[KvEntry] = []

    def run(self, position: int, operation: KvOperation) -> None:
        entry = self.kv.get(operation.key)
        match operation.verb:
            case "set":
                self._set(operation, entry)
            case "cas":
                self._expect(position, operation, operation.index == (entry.modify_index if entry else 0))
                self._set(operation, entry)
            case "delete":
                self._delete([operation.key] if entry else [])
            case "delete-cas":
                self._expect(position, operation, entry is None or operation.index == entry.modify_index)
                self._delete([operation.key] if entry else [])
            case "delete-tree":
                self._delete([key for key in self.kv if key.startswith(operation.key)])
            case _:
                self._read(position, operation, entry)

    def _read(self, position: int, operation: KvOperation, entry: KvEntry | None) -> None:
        match operation.verb:
            case "get":
                if entry is None:
                    raise TransactionError(position, f'key "{operation.key}" doesn\'t exist')
                self.results.append(entry)
            case "get-tree":
                self.results += [self.kv[key] for key in sorted(self.kv) if key.startswith(operation.key)]
            case "check-index":
                self._expect(position, operation, entry is not None and entry.modify_index == operation.index)
            case "check-not-exists":
                self._expect(position, operation, entry is None)
            case verb:
                raise TransactionError(position, f'unknown KV verb "{verb}"')

    def _expect(self, position: int, operation: KvOperation, holds: bool) -> None:  # noqa: FBT001  one private assertion
        if not holds:
            raise TransactionError(position, f'failed to {operation.verb} key "{operation.key}", index is stale')

    def _set(self, operation: KvOperation, entry: KvEntry | None) -> None:
        created = entry.create_index if entry else self.index
        new = KvEntry(operation.key, operation.value, operation.flags, created, self.index)
        if entry and (entry.value, entry.flags) == (new.value, new.flags):
            new = entry  # as Consul: writing the same value moves no index
        else:
            self.kv[operation.key] = new
            self.records.append(new)
        self.results.append(replace(new, value=b""))

    def _delete(self, keys: list[str]) -> None:
        for key in keys:
            del self.kv[key]
            self.records.append(KvGone(key, self.index))
