"""What was written is there again, whatever the end of the file looks like."""

import errno
import os

import pytest

from devmesh.errors import DevmeshError
from devmesh.registry.embedded import journal as journal_module
from devmesh.registry.embedded.journal import Journal
from devmesh.registry.embedded.store import Check, HttpProbe, KvEntry, KvGone, Service, ServiceGone

RECORDS = [
    [KvEntry("devmesh/x", b"\x00\xff\n", 7, 2, 3), KvGone("devmesh/y", 4)],
    [Service("a", "b", "127.0.0.1", 80, ("t",), {"k": "v"}, {"virtual": {"Address": "240.240.0.1", "Port": 80}}, 5, 5)],
    [Check("c", "n", "a", "b", http=HttpProbe("http://127.0.0.1/", 1.0), create_index=6, modify_index=6), ServiceGone("a", 7)],
]


@pytest.fixture
def written(tmp_path):
    journal = Journal(tmp_path)
    for records in RECORDS:
        journal.append(records)
    journal.close()
    return tmp_path


def replayed(directory):
    journal = Journal(directory)
    try:
        return list(journal.replay())
    finally:
        journal.close()


def test_records_come_back_equal_and_in_order(written):
    assert replayed(written) == RECORDS


def test_a_torn_last_line_is_cut_off_and_writing_goes_on(written):
    path = written / "registry.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    journal = Journal(written)
    assert list(journal.replay()) == RECORDS[:2]
    journal.append(RECORDS[2])
    journal.close()
    assert replayed(written) == RECORDS


def test_a_damaged_line_is_named(written):
    path = written / "registry.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"{nonsense}\n" + lines[2])
    with pytest.raises(DevmeshError, match=r"registry\.jsonl:2 is damaged"):
        replayed(written)


def test_compaction_keeps_what_it_is_given_and_appends_after_it(written, monkeypatch):
    monkeypatch.setattr(journal_module, "COMPACT_ABOVE_LINES", 2)
    journal = Journal(written)
    list(journal.replay())
    assert journal.wants_compaction(live=1)
    journal.compact(RECORDS[0])
    assert not journal.wants_compaction(live=1)
    journal.append(RECORDS[1])
    journal.close()
    assert replayed(written) == [[RECORDS[0][0]], [RECORDS[0][1]], RECORDS[1]]


@pytest.mark.parametrize("taken", [0, 5], ids=["no room at all", "for half a line"])
def test_what_a_full_disk_did_not_take_is_there_after_the_next_rewrite(written, monkeypatch, taken):
    journal = Journal(written)
    list(journal.replay())
    really = os.write

    def write(fd, data):
        if not taken:
            raise OSError(errno.ENOSPC, "No space left on device")
        return really(fd, data[:taken])

    with monkeypatch.context() as full:
        full.setattr(os, "write", write)
        journal.append([KvGone("devmesh/z", 8)])
    assert journal.is_behind
    journal.append([KvGone("devmesh/zz", 9)])
    assert replayed(written) == RECORDS, "no torn line, nothing that follows what is missing"
    with monkeypatch.context() as full:
        full.setattr(Journal, "_rewrite", _no_room)
        journal.compact(RECORDS[0])
    assert journal.is_behind
    journal.compact(RECORDS[0])
    assert not journal.is_behind
    journal.append(RECORDS[1])
    journal.close()
    assert replayed(written) == [[RECORDS[0][0]], [RECORDS[0][1]], RECORDS[1]]


def _no_room(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_the_file_is_its_owners_alone(written):
    assert (written / "registry.jsonl").stat().st_mode & 0o777 == 0o600
