"""The files below sessions: records that show damage, hashes that notice edits, locks, pruning."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest

from retake_edge.errors import ConfigError, SessionError
from retake_edge.files import default_cache_dir, file_sha256, write_atomically
from retake_edge.formats import parse_bytes
from retake_edge.session.store.folder import SessionStore
from retake_edge.session.store.journal import (
    ARRAYS,
    CELLS,
    JSON,
    Journal,
    JournalWriter,
    read_arrays,
)
from retake_edge.session.store.key import HashCache


def written(path):
    """A small journal with one record of each kind; returns the bytes that were safe after each."""
    with JournalWriter(path) as journal:
        journal.append_json({"format": 1, "word": "Gruesse"})
        safe = [journal.sync()]
        journal.append(CELLS, np.arange(300, dtype=np.uint8))
        safe.append(journal.sync())
        journal.append_arrays({"a": np.arange(6).reshape(2, 3), "b": np.array(0.5)})
        safe.append(journal.sync())
    return safe


def test_a_journal_gives_back_what_was_written(tmp_path):
    safe = written(tmp_path / "a")
    records = list(Journal(tmp_path / "a").checked())
    assert [record.tag for record in records] == [JSON, CELLS, ARRAYS]
    assert Journal(tmp_path / "a").head() == {"format": 1, "word": "Gruesse"}
    assert np.array_equal(records[1].content, np.arange(300, dtype=np.uint8))
    arrays = read_arrays(records[2])
    assert np.array_equal(arrays["a"], [[0, 1, 2], [3, 4, 5]]) and arrays["b"] == 0.5
    assert safe[-1] == (tmp_path / "a").stat().st_size


def test_a_journal_goes_on_from_a_safe_length_as_if_it_had_not_stopped(tmp_path):
    safe = written(tmp_path / "a")
    whole = (tmp_path / "a").read_bytes()
    records = list(Journal(tmp_path / "a").checked())
    for n_done in (1, 2):
        (tmp_path / "b").write_bytes(whole + b"half a record")
        with JournalWriter(tmp_path / "b", safe[n_done - 1]) as journal:
            for record in records[n_done:]:
                journal.append(record.tag, record.content)
        assert (tmp_path / "b").read_bytes() == whole


def test_every_flipped_bit_is_noticed(tmp_path):
    written(tmp_path / "a")
    whole = (tmp_path / "a").read_bytes()
    for at in range(len(whole)):
        (tmp_path / "a").write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(SessionError, match="cannot be used"):
            list(Journal(tmp_path / "a").checked())


def test_every_cut_is_noticed_unless_it_falls_between_records(tmp_path):
    safe = written(tmp_path / "a")
    whole = (tmp_path / "a").read_bytes()
    for n_bytes in range(len(whole)):
        (tmp_path / "a").write_bytes(whole[:n_bytes])
        if n_bytes in safe:
            assert len(list(Journal(tmp_path / "a").checked())) == safe.index(n_bytes) + 1
        else:
            with pytest.raises(SessionError):
                Journal(tmp_path / "a").head()


def test_a_file_is_replaced_as_a_whole(tmp_path):
    write_atomically(tmp_path / "a", b"old")
    write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


# --- hashes of files ---------------------------------------------------------------------------


def settled(path, content, age_s=60):
    """A file that was last changed a while ago, as far as one can tell from outside."""
    path.write_bytes(content)
    then = time.time() - age_s
    os.utime(path, (then, then))


def test_a_hash_is_remembered_only_while_the_file_stays_as_it_is(tmp_path, monkeypatch):
    file, memory = tmp_path / "video", tmp_path / "memory" / "hashes.json"
    settled(file, b"first")
    # The time of the last change of status cannot be set: let the clock run ahead instead.
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 60)
    first = HashCache(memory).sha256(file)
    assert first == file_sha256(file) and memory.is_file()
    memory.write_text(memory.read_text().replace(first, "f" * 64))
    assert HashCache(memory).sha256(file) == "f" * 64, "the file was read again"
    settled(file, b"other")
    assert HashCache(memory).sha256(file) == file_sha256(file)


def test_a_hash_of_a_file_that_has_just_changed_is_not_remembered(tmp_path):
    file, memory = tmp_path / "video", tmp_path / "hashes.json"
    file.write_bytes(b"new")
    assert HashCache(memory).sha256(file) == file_sha256(file)
    assert not memory.exists()


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b'{"x": 3}'])
def test_a_damaged_memory_of_hashes_is_done_without(tmp_path, content):
    (tmp_path / "hashes.json").write_bytes(content)
    (tmp_path / "video").write_bytes(b"x")
    digest = HashCache(tmp_path / "hashes.json").sha256(tmp_path / "video")
    assert digest == file_sha256(tmp_path / "video")


# --- the folder --------------------------------------------------------------------------------


def saved(store, key, n_bytes, used_at_s):
    store.folder.mkdir(parents=True, exist_ok=True)
    with JournalWriter(store.complete(key)) as journal:
        journal.append_json({"key": key})
        journal.append(CELLS, bytes(n_bytes))
        journal.append_json({"video": {}})
    os.utime(store.complete(key), (used_at_s, used_at_s))


def test_pruning_removes_what_was_not_used_for_longest(tmp_path):
    store = SessionStore(tmp_path)
    for key, used_at_s in (("aa", 300), ("bb", 100), ("cc", 200)):
        saved(store, key, 1000, used_at_s)
    assert [session.key for session in store.sessions()] == ["aa", "cc", "bb"]
    size = store.sessions()[0].n_bytes
    assert [session.key for session in store.prune(2 * size)] == ["bb"]
    assert store.prune(2 * size) == []
    store.touch("cc")
    assert [session.key for session in store.prune(size)] == ["aa"]
    assert [session.key for session in store.prune(0)] == ["cc"]
    assert list(store.folder.iterdir()) == []


def test_a_session_is_found_by_the_beginning_of_its_key(tmp_path):
    store = SessionStore(tmp_path)
    saved(store, "abc1", 1, 1)
    saved(store, "abd2", 1, 1)
    assert store.find("abc") == "abc1"
    for prefix, n in (("ab", "2 saved"), ("x", "No saved"), ("", "No saved")):
        with pytest.raises(SessionError, match=n):
            store.find(prefix)


HOLD = """
import sys; from retake_edge.session.store.folder import SessionStore
with SessionStore(sys.argv[1]).lock("aa"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.process
def test_a_lock_is_held_by_one_process_and_let_go_when_it_is_killed(tmp_path):
    store = SessionStore(tmp_path)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout.readline() == "held\n"
        saved(store, "aa", 10, 1)
        with pytest.raises(SessionError, match="another process"):
            store.remove("aa")
        assert store.prune(0) == [] and store.keys() == ["aa"]
        with store.lock("aa", holder.kill):
            assert holder.wait() != 0, "on_wait was called"
        holder.wait()
    assert store.remove("aa") > 10
    assert list(store.folder.iterdir()) == []


def test_removing_one_session_leaves_the_others(tmp_path):
    store = SessionStore(tmp_path)
    saved(store, "aa", 10, 1)
    saved(store, "bb", 10, 1)
    store.remove("aa")
    assert store.keys() == ["bb"]
    assert SessionStore(tmp_path / "nothing").keys() == []


def test_a_session_that_is_being_read_can_be_removed(tmp_path):
    store = SessionStore(tmp_path)
    saved(store, "aa", 100_000, 1)
    journal = Journal(store.complete("aa"))
    store.remove("aa")
    assert sum(len(record.content) for record in journal.checked()) > 100_000


def test_a_damaged_session_is_listed_with_its_problem(tmp_path):
    store = SessionStore(tmp_path)
    saved(store, "aa", 10, 1)
    store.complete("aa").write_bytes(b"rubbish that is long enough")
    (session,) = store.sessions()
    assert "no session file" in session.problem and session.end == {}


def test_the_cache_folder_can_be_named_by_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("RETAKE_CACHE_DIR", str(tmp_path))
    assert default_cache_dir() == tmp_path
    monkeypatch.delenv("RETAKE_CACHE_DIR")
    assert default_cache_dir().name == "retake-edge"


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [("0", 0), ("1000", 1000), ("20G", 20 * 10**9), ("1.5kB", 1500), ("500MiB", 500 * 2**20)],
)
def test_sizes_are_read_as_people_write_them(text, n_bytes):
    assert parse_bytes(text) == n_bytes


@pytest.mark.parametrize("text", ["", "G", "-1", "1 apple", "5iB", "1e9"])
def test_other_sizes_are_refused(text):
    with pytest.raises(ConfigError, match="no number of bytes"):
        parse_bytes(text)
