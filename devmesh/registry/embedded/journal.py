"""The store's memory: one JSON array of records a line, appended in one write, rewritten when most of it is history.

A write is in the kernel before the client is answered, so a killed registry loses nothing; fsync follows within a second,
so a machine that loses power loses at most that second. A last line torn by that is cut off.
While it cannot be written (a full disk) it is behind: the registry goes on, and the first rewrite that succeeds catches up.
"""

import base64
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from devmesh.errors import DevmeshError
from devmesh.registry.embedded.store import Check, CheckGone, Counters, HttpProbe, KvEntry, KvGone, Record, Service, ServiceGone

log = logging.getLogger(__name__)
# Below this a rewrite saves nothing worth its fsync.
COMPACT_ABOVE_LINES = 2_000
KINDS: dict[str, type[Any]] = {cls.__name__: cls for cls in (KvEntry, KvGone, Service, ServiceGone, Check, CheckGone, Counters)}


def encode(records: Sequence[Record]) -> bytes:
    return orjson.dumps([_plain(record) for record in records]) + b"\n"


def _plain(record: Record) -> dict[str, Any]:
    plain = asdict(record) | {"record": type(record).__name__}
    if isinstance(record, KvEntry):
        plain["value"] = base64.b64encode(record.value).decode()
    return plain


def decode(line: bytes) -> list[Record]:
    return [_record(dict(plain)) for plain in orjson.loads(line)]


def _record(plain: dict[str, Any]) -> Record:
    kind = KINDS[plain.pop("record")]
    if kind is KvEntry:
        plain["value"] = base64.b64decode(plain["value"])
    if kind is Service:
        plain["tags"] = tuple(plain["tags"])
    if kind is Check and plain["http"]:
        plain["http"] = HttpProbe(**plain["http"])
    record: Record = kind(**plain)
    return record


class Journal:
    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = directory / "registry.jsonl"
        self._lines = 0
        self._dirty = False
        self.is_behind = False
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = os.fstat(self._file).st_size

    def replay(self) -> Iterator[list[Record]]:
        """All transactions in order. A torn last line is removed; a broken one before it is a DevmeshError."""
        good = 0
        with self._path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                yield self._decoded(number, line)
                good += len(line)
                self._lines = number
        os.ftruncate(self._file, good)
        self._size = good

    def _decoded(self, number: int, line: bytes) -> list[Record]:
        try:
            return decode(line)
        except (ValueError, KeyError, TypeError) as error:
            raise DevmeshError(f"{self._path}:{number} is damaged: {error}", "devmesh down --volumes") from error

    def append(self, records: Sequence[Record]) -> None:
        if self.is_behind:  # these would follow what is not there
            return
        line = encode(records)
        try:
            written = os.write(self._file, line)
        except OSError as error:
            self._fall_behind(error.strerror)
            return
        if written < len(line):
            os.ftruncate(self._file, self._size)
            self._fall_behind("the disk is full")
            return
        self._size += written
        self._lines += 1
        self._dirty = True

    def _fall_behind(self, why: str | None) -> None:
        log.error("%s cannot be written (%s): what is written from now on is lost if the registry ends before it can be", self._path, why)
        self.is_behind = True

    def sync(self) -> None:
        """Fsync when something was written since the last time; safe to run in a thread."""
        if self._dirty:
            self._dirty = False
            os.fsync(self._file)

    def wants_compaction(self, live: int) -> bool:
        return self._lines > COMPACT_ABOVE_LINES and self._lines > 2 * live

    def compact(self, records: Iterable[Record]) -> None:
        """Replace the journal with these records, atomically; where there is no room for them it stays as it is."""
        draft = self._path.with_suffix(".new")
        try:
            self._rewrite(draft, records)
        except OSError as error:
            draft.unlink(missing_ok=True)
            if not self.is_behind:
                log.warning("%s cannot be rewritten: %s", self._path, error.strerror)
            return
        if self.is_behind:
            log.info("%s has caught up", self._path)
        self.is_behind = False

    def _rewrite(self, draft: Path, records: Iterable[Record]) -> None:
        lines = 0
        with draft.open("wb") as file:
            for record in records:
                file.write(encode([record]))
                lines += 1
            file.flush()
            os.fsync(file.fileno())
        os.close(self._file)
        draft.rename(self._path)
        self._file = os.open(self._path, os.O_RDWR | os.O_APPEND)
        self._lines, self._size = lines, os.fstat(self._file).st_size

    def close(self) -> None:
        self.sync()
        os.close(self._file)
