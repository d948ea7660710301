"""A chunk is written while the next one is computed: one at a time, and safe at any moment."""

import errno
import os
import signal
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from session_support import MODEL, QUESTION, VIDEO, opened, question_logits, settings

from retake_edge.engine.engine import Engine
from retake_edge.files import write_atomically
from retake_edge.llama.context import Context
from retake_edge.plan.cells import text_reserve
from retake_edge.plan.memory import saved_bytes
from retake_edge.plan.run import RunPlanner
from retake_edge.session.prefilled import SessionWarning
from retake_edge.session.store import checkpoint
from retake_edge.session.store.checkpoint import Recorder, read_resume
from retake_edge.session.store.folder import SessionStore
from retake_edge.session.store.journal import ARRAYS, CELLS, JSON, Journal, JournalWriter
from retake_edge.video.read import probe_video

_WAIT_S = 120  # never reached, unless a test fails


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with the whole session, its key, and the logits after a question."""
    folder = tmp_path_factory.mktemp("whole")
    with opened(folder) as session:
        return folder, session.saved.key, question_logits(session)


def contents(folder, key):
    records = Journal(SessionStore(folder).complete(key)).checked()
    return [(r.tag, r.content.tobytes()) for r in records if r.tag != JSON]


def test_a_chunk_is_written_while_the_next_one_is_computed(tmp_path, monkeypatch, whole):
    """The first chunk's writing ends only once the second one is being decoded."""
    decode, write, n_decoded = Engine.prefill_chunk, Recorder._write, []
    second = threading.Event()
    seen = []

    def decoding(self, chunk, keep_ratio):
        n_decoded.append(1)
        if len(n_decoded) == 2:
            second.set()
        return decode(self, chunk, keep_ratio)

    def writing(self, parts):
        seen.append(second.wait(_WAIT_S))
        write(self, parts)

    monkeypatch.setattr(Engine, "prefill_chunk", decoding)
    monkeypatch.setattr(Recorder, "_write", writing)
    with opened(tmp_path) as session:
        assert np.array_equal(question_logits(session), whole[2])
    assert seen == [True] * 6
    assert contents(tmp_path, whole[1]) == contents(*whole[:2])


def test_a_chunk_is_taken_from_the_cache_only_when_the_one_before_is_written(tmp_path, monkeypatch):
    """So one at most takes memory, although each is written as late as can be."""
    write, save, take = Recorder._write, Recorder.add, Context.save_cells
    goes_on, written, added = threading.Event(), [], []
    found = []

    def writing(self, parts):
        assert goes_on.wait(_WAIT_S)
        goes_on.clear()
        write(self, parts)
        written.append(1)

    def adding(self, *arguments):
        goes_on.set()
        save(self, *arguments)
        added.append(1)

    def taking(self, *arguments):
        found.append(len(added) - len(written))
        return take(self, *arguments)

    monkeypatch.setattr(Recorder, "_write", writing)
    monkeypatch.setattr(Recorder, "add", adding)
    monkeypatch.setattr(Recorder, "finish", _after(goes_on.set, Recorder.finish))
    monkeypatch.setattr(Context, "save_cells", taking)
    opened(tmp_path).close()
    assert len(found) == 2 * 6 + 1 and not any(found)


def _after(first, function):
    def both(*arguments):
        first()
        return function(*arguments)

    return both


@pytest.mark.parametrize("n", [0, 1, 5])
def test_what_fails_in_the_background_costs_the_session_and_not_the_answer(
    tmp_path, monkeypatch, whole, n
):
    """The first chunk, one in the middle, and the last one, which only the end can tell."""
    write, written = Recorder._write, []

    def failing(self, parts):
        written.append(1)
        if len(written) == n + 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, parts)

    monkeypatch.setattr(Recorder, "_write", failing)
    told = pytest.warns(SessionWarning, match="cannot be saved .No space left")
    with told, opened(tmp_path) as session:
        assert session.saved.key == ""
        assert session.ask(QUESTION).n_tokens > 0
        assert np.array_equal(question_logits(session), whole[2])
    assert len(written) == n + 1, "nothing is written after a failure"
    assert not SessionStore(tmp_path).complete(whole[1]).exists()
    monkeypatch.undo()
    with opened(tmp_path) as session:
        assert session.saved.key == whole[1]
    assert contents(tmp_path, whole[1]) == contents(*whole[:2])


def test_ctrl_c_waits_for_the_chunk_that_is_on_its_way(tmp_path, monkeypatch, whole):
    """Then the run goes on after it: the resume file tells as many chunks as were computed."""
    write, stopped = Recorder._write, threading.Event()

    def writing(self, parts):
        assert stopped.wait(_WAIT_S)
        write(self, parts)

    def stop(stage, _done, _total):
        if stage == "prefill":
            stopped.set()
            raise KeyboardInterrupt

    monkeypatch.setattr(Recorder, "_write", writing)
    with pytest.raises(KeyboardInterrupt):
        opened(tmp_path, progress=stop)
    state, _, _ = read_resume(SessionStore(tmp_path).resume(whole[1]))
    assert state.stream.n_frames == 2
    monkeypatch.undo()
    with opened(tmp_path) as session:
        assert np.array_equal(question_logits(session), whole[2])
    assert contents(tmp_path, whole[1]) == contents(*whole[:2])


def test_the_resume_file_names_only_what_was_brought_to_the_disk_before(tmp_path, monkeypatch):
    order = []
    sync, replace = JournalWriter.sync, write_atomically

    def synced(self):
        n_bytes = sync(self)
        order.append(("synced", n_bytes))
        return n_bytes

    def named(path, content):
        replace(path, content)
        order.append(("named", read_resume(path)[0].n_bytes))

    monkeypatch.setattr(JournalWriter, "sync", synced)
    monkeypatch.setattr(checkpoint, "write_atomically", named)
    opened(tmp_path).close()
    assert [what for what, _ in order] == ["synced", *["synced", "named"] * 6, "synced"]
    for before, after in pairwise(order):
        assert after[0] != "named" or before[1] == after[1]


def test_the_cells_on_their_way_are_in_the_plan(tmp_path, monkeypatch):
    sizes, write = [], Recorder._write

    def writing(self, parts):
        sizes.append(parts.cells.nbytes + parts.newest_cells.nbytes)
        write(self, parts)

    monkeypatch.setattr(Recorder, "_write", writing)
    config = settings()
    opened(tmp_path, config).close()
    with RunPlanner(MODEL, text_reserve(config)) as planner:
        planned = saved_bytes(
            planner.plan(probe_video(VIDEO), config).cells.memory, saves_at_end=False
        )
    assert planned == pytest.approx(max(sizes), rel=0.1)


# The process kills itself at the n-th step of its second chunk.
_KILLED = """
import os, signal, sys
from pathlib import Path
from retake_edge.session.store import checkpoint
from retake_edge.session.store import journal
from session_support import opened

n_steps, at = [0], int(sys.argv[2])

def step():
    if n_chunks[0] == 2:
        n_steps[0] += 1
        if n_steps[0] == at:
            os.kill(os.getpid(), signal.SIGKILL)

n_chunks = [0]
write, append = checkpoint.Recorder._write, journal.JournalWriter._write
fsync, replace = os.fsync, Path.replace

def writing(self, parts):
    n_chunks[0] += 1
    write(self, parts)
    step()

def appending(self, view):
    append(self, view[: len(view) // 2])
    step()  # a record is cut in the middle
    append(self, view[len(view) // 2 :])

def syncing(descriptor):
    step()
    fsync(descriptor)
    step()

def replacing(self, target):
    step()
    return replace(self, target)

checkpoint.Recorder._write = writing
journal.JournalWriter._write = appending
os.fsync, Path.replace = syncing, replacing
opened(sys.argv[1]).close()
"""
_N_STEPS = 11  # two records of a head and a content, two times before and after fsync, ...


def killed(folder: Path, at: int) -> int:
    places = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1] / "support")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    call = [sys.executable, "-c", _KILLED, str(folder), str(at)]
    return subprocess.run(call, env=environment, check=False, timeout=300).returncode


@pytest.mark.process
@pytest.mark.parametrize("at", range(1, _N_STEPS))
def test_killed_at_any_step_of_a_chunk_the_run_goes_on_with_the_same_result(tmp_path, whole, at):
    assert killed(tmp_path, at) == -signal.SIGKILL
    store, key = SessionStore(tmp_path), whole[1]
    state, _, _ = read_resume(store.resume(key))
    assert state.stream.n_frames in (2, 4), "the first chunk, or the second one, too"
    safe = list(Journal(store.part(key), state.n_bytes).checked())
    n_chunks = state.stream.n_frames // 2
    assert [record.tag for record in safe] == [JSON, *[CELLS, ARRAYS] * n_chunks]
    decoded = []
    with opened(tmp_path, progress=lambda s, d, _: decoded.extend([d] * (s == "decode"))) as s:
        assert decoded[0] > 2 * state.stream.n_frames, "the finished chunks were decoded again"
        assert np.array_equal(question_logits(s), whole[2])
    assert contents(tmp_path, key) == contents(*whole[:2])
    assert not store.part(key).exists() and not store.resume(key).exists()


@pytest.mark.process
def test_every_step_was_tried(tmp_path):
    assert killed(tmp_path, _N_STEPS) == 0 and VIDEO.exists()
