"""Sessions on a real (random) model and real videos: found again, gone on with, never stale."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from session_support import (
    ARGUMENTS,
    LONG_VIDEO,
    MODEL,
    QUESTION,
    VIDEO,
    command,
    opened,
    question_logits,
    run,
    settings,
)

from retake_edge.errors import ConfigError, ModelError, SessionError
from retake_edge.llama.library import library_dir
from retake_edge.models.manifest import ModelFiles
from retake_edge.plan.run import RunPlanner
from retake_edge.session.open import open_session
from retake_edge.session.prefilled import SessionWarning
from retake_edge.session.store import key as fingerprint
from retake_edge.session.store.folder import SessionStore
from retake_edge.session.store.journal import (
    ARRAYS,
    CELLS,
    JSON,
    Journal,
    JournalWriter,
)
from retake_edge.video.read import probe_video


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A cache folder with the session of the standard video, its key, logits and answer."""
    folder = tmp_path_factory.mktemp("made")
    with opened(folder) as session:
        answer = session.ask(QUESTION)
        return folder, session.saved.key, question_logits(session), answer


@pytest.fixture
def cache(made, tmp_path):
    """A copy of that folder, to be damaged at will."""
    shutil.copytree(made[0], tmp_path / "cache")
    return tmp_path / "cache"


def session_file(folder, key):
    return SessionStore(folder).complete(key)


@pytest.mark.parametrize("type_kv", ["f32", "f16", "q8_0", "q4_0"])
def test_a_saved_session_answers_bit_for_bit_as_the_run_that_made_it(tmp_path, type_kv):
    config = settings(type_kv=type_kv)
    with opened(tmp_path, config) as first:
        assert not first.saved.is_reused
        expected, answer = question_logits(first), first.ask(QUESTION)
    with opened(tmp_path, config) as again:
        assert again.saved.is_reused and again.saved.key == first.saved.key
        assert np.array_equal(question_logits(again), expected)
        second = again.ask(QUESTION)
    assert (second.text, second.n_tokens) == (answer.text, answer.n_tokens)
    assert second.evidence == answer.evidence
    for name in ("frame_times_s", "pivot_share", "cell_frames"):
        assert np.array_equal(getattr(again.video_map, name), getattr(first.video_map, name)), name
    assert again.thumbnails == first.thumbnails and len(first.thumbnails) == 12
    assert again.index_seconds["encode"] == first.index_seconds["encode"]


def test_a_saved_session_is_the_same_as_none(made, tmp_path):
    with opened(tmp_path, use_cache=False) as session:
        assert session.saved.key == ""
        assert np.array_equal(question_logits(session), made[2])
    assert list(tmp_path.iterdir()) == []


def test_the_last_answer_is_there_once_a_stream_was_read_to_its_end(tmp_path):
    with opened(tmp_path) as session:
        with pytest.raises(ConfigError, match="Nothing has been answered yet"):
            session.last_answer()
        text = "".join(session.stream(QUESTION))
        assert session.last_answer().text == text.strip()


def test_a_follow_up_loads_neither_the_video_nor_the_vision_tower(cache, caplog, tmp_path):
    caplog.set_level(logging.DEBUG, "retake_edge.llama.model")
    with opened(cache) as session:
        assert session.saved.is_reused
        seconds = session.ask(QUESTION).seconds
    assert set(seconds) == {"check", "load", "evidence", "generate", "first_token"}
    assert "clip" not in caplog.text
    with opened(tmp_path / "other"):
        assert "clip" in caplog.text


def test_q8_0_sessions_are_about_half_as_large_as_f16_ones(tmp_path):
    sizes = {}
    for type_kv in ("f16", "q8_0"):
        # Everything is kept, so that cells outweigh the pictures, as they do with real models.
        with opened(tmp_path, settings(type_kv=type_kv, keep_ratio=1.0)) as session:
            file = session_file(tmp_path, session.saved.key)
        sizes[type_kv] = sum(len(r.content) for r in Journal(file).checked() if r.tag == CELLS)
    assert 0.5 < sizes["q8_0"] / sizes["f16"] < 0.56


# --- what makes another session ----------------------------------------------------------------


def facts(config=None, model=MODEL, n_text_reserve=700, sha256="v", model_sha256="m"):
    with RunPlanner(model, n_text_reserve) as planner:
        plan = planner.plan(probe_video(VIDEO), config or settings())
        return fingerprint.session_facts(plan, sha256, {"model": model_sha256})


def whole(**options):
    """Settings under which all is kept."""
    return settings(keep_ratio=None, **options)


@pytest.mark.parametrize(
    ("config", "other"),
    [
        (settings(), settings(max_tokens=99)),
        (settings(), settings(batch=4)),
        (settings(), settings(n_batch=512)),
        (settings(), settings(n_ctx=4096)),
        (settings(), settings(seed=1)),
        (settings(), settings(pivot="none")),
        (settings(), settings(fps=8.0, end_s=99.0, max_frames=1000)),
        (settings(fps=None), settings(fps=2.0)),
        (whole(), settings(keep_ratio=1.0)),
        (whole(), settings(policy="none", keep_ratio=0.25)),
        (whole(), whole(policy="random", seed=3, pivot="none", n_queries=7)),
        (whole(), whole(kv_budget=30_000, n_ctx=8192, prefill_chunk_frames=8)),
        (settings(policy="uniform"), settings(policy="uniform", n_queries=7)),
    ],
)
def test_what_changes_no_cell_is_the_same_session(config, other):
    assert facts(config) == facts(other)


def test_what_changes_the_cells_makes_another_session():
    found = [
        facts(),
        facts(n_text_reserve=9, config=settings(n_ctx=300, keep_ratio=None)),
        facts(settings(fps=4.0)),
        facts(settings(end_s=2.0)),
        facts(settings(type_kv="q8_0")),
        facts(settings(keep_ratio=0.5)),
        facts(settings(policy="pivotkv")),
        facts(settings(policy="pivotkv", pivot="none")),
        facts(settings(policy="random")),
        facts(settings(policy="random", seed=1)),
        facts(settings(positions="reforge")),
        facts(settings(prefill_chunk_frames=8)),
        facts(settings(n_queries=7)),
        facts(sha256="w"),
        facts(model_sha256="n"),
    ]
    assert len({fingerprint.session_key(each) for each in found}) == len(found)


def test_the_attention_rotation_switch_makes_another_session(monkeypatch):
    before = facts()
    monkeypatch.setenv("LLAMA_ATTN_ROT_DISABLE", "1")
    assert facts() != before


def test_cells_of_other_libraries_make_another_session(monkeypatch, tmp_path):
    for library in library_dir().iterdir():
        shutil.copy(library, tmp_path)
    with next(tmp_path.glob("*llama.*")).open("ab") as file:  # another state version, for instance
        file.write(b" ")
    before = facts()
    monkeypatch.setattr("retake_edge.llama.library.library_dir", lambda: tmp_path)
    fingerprint.engine_facts.cache_clear()
    after = facts()
    fingerprint.engine_facts.cache_clear()
    assert before["engine"].pop("library") != after["engine"].pop("library")
    assert before == after


@pytest.mark.process
def test_all_code_that_makes_cells_is_part_of_the_key():
    code = "import sys, retake_edge.session.ingest; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name for name in out.stdout.split() if name.startswith("retake_edge.")}
    around = {f"retake_edge.{name}" for name in fingerprint.NOT_SHAPING}
    shaping = fingerprint.shaping_sources()
    assert around & loaded and not around & set(shaping)
    behind = {name for name in loaded - set(shaping) if name not in around}
    # What is left is reached through the modules around alone, or a folder's one docstring.
    folders = {name.rpartition(".")[0] for name in loaded}
    hub = {name for name in loaded if name.startswith("retake_edge.models.hub.")}
    assert behind - folders - hub == {"retake_edge.version"}
    assert {"engine.engine", "llama.model", "video.worker"} <= {
        n.removeprefix("retake_edge.") for n in shaping
    }


def test_settings_that_come_to_the_same_find_the_session(cache):
    with opened(cache, settings(n_ctx=4096, seed=7, n_batch=1024)) as session:
        assert session.saved.is_reused
        assert session.ask(QUESTION).n_tokens > 0


# --- other sessions of the same video ----------------------------------------------------------


def test_what_another_session_of_the_video_has_is_told_before_it_is_read_again(cache, made):
    notes = []
    with opened(cache, settings(fps=4.0, keep_ratio=0.5), on_note=notes.append) as session:
        assert not session.saved.is_reused
    (note,) = notes
    assert "a frame every 0.1 s (now 0.2 s)" in note and "25 % kept (now 50 % kept)" in note
    assert f"retake-edge ask {made[1][:8]} QUESTION" in note
    with opened(cache, settings(fps=4.0, keep_ratio=0.5), on_note=notes.append):
        assert len(notes) == 1, "what is found is not compared"


def rewritten(store, name, **head):
    """Change a session's first record."""
    file = store.complete(name)
    records = list(Journal(file).checked())
    with JournalWriter(file.with_suffix(".new")) as journal:
        journal.append_json({**json.loads(records[0].content.tobytes()), **head})
        for record in records[1:]:
            journal.append(record.tag, record.content)
    file.with_suffix(".new").replace(file)


def test_a_session_of_another_version_is_told_of_in_one_sentence(cache, made, tmp_path):
    store, key = SessionStore(cache), made[1]
    old = {**store.info(key).facts, "engine": {"version": "0.0.1"}}
    was = session_file(cache, key)
    rewritten(store, key, key="0" * 32, facts=old)
    was.rename(was.with_name("0" * 32 + ".session"))
    notes = []
    with opened(cache, on_note=notes.append) as session:
        assert not session.saved.is_reused and session.saved.key == key
    (note,) = notes
    assert "another version" in note and note.count(";") == 1
    with pytest.raises(SessionError, match="another version"):
        open_session("000000", cache_dir=cache)


def test_a_session_is_asked_by_its_key_without_the_video(made, tmp_path):
    folder, video = tmp_path / "cache", tmp_path / "gone.mp4"
    shutil.copy(VIDEO, video)
    with opened(folder, video=video) as session:
        key = session.saved.key
    video.unlink()
    config = settings(max_tokens=3, fps=1.0)  # only how answers are drawn counts
    with open_session(key[:6], config, cache_dir=folder) as session:
        assert session.saved.is_reused and session.config.sampling.fps == 8.0
        assert np.array_equal(question_logits(session), made[2])
        answer = session.ask(QUESTION)
        assert answer.n_tokens <= 3 and answer.video.path == str(video)


def test_an_unfinished_session_asked_by_its_key_goes_on(tmp_path, made):
    interrupted(tmp_path, settings(), n_chunks=2)
    with open_session(made[1], settings(), cache_dir=tmp_path) as session:
        assert np.array_equal(question_logits(session), made[2])


def test_a_session_is_not_asked_with_a_model_that_changed(tmp_path):
    model = ModelFiles(tmp_path / "tiny-f32.gguf", MODEL.mmproj)
    shutil.copy(MODEL.model, model.model)
    with opened(tmp_path / "cache", model=model) as session:
        key = session.saved.key
    with model.model.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ModelError, match="has changed"):
        open_session(key, settings(), cache_dir=tmp_path / "cache")
    model.model.unlink()
    with pytest.raises(ModelError, match="no GGUF file"):
        open_session(key, settings(), cache_dir=tmp_path / "cache")


def test_a_limit_of_the_user_removes_what_was_not_used_for_longest(cache, made, monkeypatch):
    store, notes = SessionStore(cache), []
    os.utime(session_file(cache, made[1]), (1, 1))
    monkeypatch.setenv("RETAKE_MAX_SIZE", "1k")
    with opened(cache, settings(fps=4.0), on_note=notes.append) as session:
        assert store.keys() == [session.saved.key], "the one just made stays"
    assert "note: 1 saved video, not used for longest, was removed" in notes[-1]


def test_a_copy_of_the_video_finds_the_session_and_a_changed_one_does_not(cache, tmp_path):
    copy = tmp_path / "renamed.mp4"
    shutil.copy(VIDEO, copy)
    with opened(cache, video=copy) as session:
        assert session.saved.is_reused
        assert session.video.path == str(copy)
    with copy.open("ab") as file:
        file.write(b"\0")
    with opened(cache, video=copy) as session:
        assert not session.saved.is_reused


def test_another_model_of_the_same_name_does_not_get_the_session(cache, tmp_path):
    model = ModelFiles(tmp_path / "tiny-f32.gguf", MODEL.mmproj)
    shutil.copy(MODEL.model, model.model)
    with opened(cache, model=model) as session:
        assert session.saved.is_reused
    with model.model.open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    with opened(cache, model=model) as session:
        assert not session.saved.is_reused


def test_a_video_that_changes_while_it_is_read_is_not_saved(tmp_path):
    video = tmp_path / "growing.mp4"
    shutil.copy(VIDEO, video)

    def touch(stage, _done, _total):
        if stage.startswith("prefill"):
            os.utime(video)

    with (
        pytest.warns(SessionWarning, match="changed while it was read"),
        opened(tmp_path / "cache", video=video, progress=touch) as session,
    ):
        assert session.saved.key == ""
        assert session.ask(QUESTION).n_tokens > 0
    assert SessionStore(tmp_path / "cache").keys() == []


# --- damage ------------------------------------------------------------------------------------


def flip(file, at):
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.6, 0.999])
def test_a_damaged_session_is_refused_and_made_again(cache, made, share):
    file = session_file(cache, made[1])
    flip(file, int(share * file.stat().st_size))
    with pytest.warns(SessionWarning, match="cannot be used.*made again"), opened(cache) as session:
        assert not session.saved.is_reused
        assert np.array_equal(question_logits(session), made[2])
    with opened(cache) as session:
        assert session.saved.is_reused


@pytest.mark.parametrize("n_bytes", [0, 5, 100, -1])
def test_a_session_cut_short_is_refused_and_made_again(cache, made, n_bytes):
    file = session_file(cache, made[1])
    file.write_bytes(file.read_bytes()[:n_bytes])
    with pytest.warns(SessionWarning, match="cut short"), opened(cache) as session:
        assert np.array_equal(question_logits(session), made[2])


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"format": 99}, "newer retake-edge"), ({"key": "0" * 32}, "belongs to another video")],
)
def test_a_newer_or_foreign_session_is_refused_and_made_again(cache, made, change, reason):
    rewritten(SessionStore(cache), made[1], **change)
    with pytest.warns(SessionWarning, match=reason), opened(cache) as session:
        assert not session.saved.is_reused


def test_without_a_place_to_save_the_question_is_answered_all_the_same(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.warns(SessionWarning, match="cannot be saved"), opened(blocked) as session:
        assert session.saved.key == ""
        assert session.ask(QUESTION).n_tokens > 0


@pytest.mark.process
def test_a_full_disk_costs_the_session_and_not_the_answer(tmp_path):
    code = (
        "import resource, sys; from retake_edge.cli import main; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000)); sys.argv[0] = 'x'; main()"
    )
    call = [sys.executable, "-c", code]
    options = [str(VIDEO), *ARGUMENTS, "--cache-dir", str(tmp_path)]
    ask = subprocess.run(
        [*call, "ask", *options, "-q", QUESTION], capture_output=True, text=True, check=False
    )
    assert ask.returncode == 0, ask.stderr
    assert "cannot be saved (File too large)" in ask.stderr
    assert ask.stdout.strip()
    assert list(tmp_path.glob("sessions/*.part")) == [], "nothing of it can be gone on with"
    index = subprocess.run([*call, "index", *options], capture_output=True, text=True, check=False)
    assert index.returncode == 2
    assert "was not saved" in index.stderr


# --- interruptions -----------------------------------------------------------------------------


def interrupted(cache_dir, config, n_chunks, video=VIDEO):
    """Read a video and stop after its first chunks."""
    seen = []

    def stop(stage, _done, _total):
        seen.extend([stage] * stage.startswith("prefill"))
        if len(seen) == n_chunks:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opened(cache_dir, config, video=video, progress=stop)


def contents(file):
    """All records of a session but the times it took."""
    return [(r.tag, r.content.tobytes()) for r in Journal(file).checked() if r.tag != JSON]


@pytest.mark.parametrize(
    "config",
    [
        settings(),
        settings(policy="hybrid", positions="reforge"),
        settings(policy="coverage", type_kv="q8_0"),
        settings(policy="random", prefill_chunk_frames=6, batch=4),
        settings(policy="none", keep_ratio=None, type_kv="f32"),
    ],
    ids=["pivotkv", "hybrid-reforge", "coverage-q8_0", "random-unaligned", "none"],
)
def test_an_interrupted_run_goes_on_with_the_same_result_bit_for_bit(tmp_path, config):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    with opened(whole, config) as session:
        expected, key = question_logits(session), session.saved.key
    for n_chunks in (1, 2):  # stopped twice: after the first chunk, and after two more
        interrupted(parts, config, n_chunks)
        assert not session_file(parts, key).exists()
    frames = []
    with opened(parts, config, progress=lambda s, d, _: frames.extend([d] * (s == "decode"))) as s:
        assert s.saved.key == key and not s.saved.is_reused
        assert frames[0] > 3 * 4, "the finished chunks were decoded again"
        assert np.array_equal(question_logits(s), expected)
        assert len(s.thumbnails) == len(session.thumbnails)
        assert s.video.n_keyframes == session.video.n_keyframes
    assert contents(session_file(parts, key)) == contents(session_file(whole, key))


def test_stopped_after_the_last_chunk_only_the_end_is_missing(tmp_path, made):
    config = settings()
    interrupted(tmp_path, config, n_chunks=6)
    with opened(tmp_path, config) as session:
        assert np.array_equal(question_logits(session), made[2])


@pytest.mark.parametrize("name", ["part", "resume"])
def test_an_unfinished_session_that_is_damaged_starts_anew(tmp_path, made, name):
    interrupted(tmp_path, settings(), n_chunks=2)
    store = SessionStore(tmp_path)
    file = getattr(store, name)(made[1])
    flip(file, file.stat().st_size // 2)
    with opened(tmp_path) as session:
        assert np.array_equal(question_logits(session), made[2])
    assert contents(store.complete(made[1])) == contents(session_file(made[0], made[1]))


@pytest.mark.process
def test_kill_9_at_any_moment_loses_nothing_that_was_finished(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = ["index", str(LONG_VIDEO), *ARGUMENTS]
    code, key, err = run(*options, "--cache-dir", str(whole))
    assert code == 0, err
    key = key.strip()
    store = SessionStore(parts)
    n_safe, n_kills = 0, 0
    for n_more_bytes in (1, 3000, 20000, 60000):
        process = command(*options, "--cache-dir", str(parts))
        while process.poll() is None:
            part = store.part(key)
            if part.exists() and part.stat().st_size >= n_safe + n_more_bytes:
                break
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not store.complete(key).exists()
        n_kills += 1
        n_safe = store.part(key).stat().st_size
    code, out, err = run(*options, "--cache-dir", str(parts), "--json")
    assert code == 0, err
    assert json.loads(out)["session"]["key"] == key and n_kills == 4
    assert contents(store.complete(key)) == contents(session_file(whole, key))
    assert not store.part(key).exists() and not store.resume(key).exists()


@pytest.mark.process
def test_two_processes_at_once_make_one_session(tmp_path):
    options = ["index", str(LONG_VIDEO), *ARGUMENTS, "--cache-dir", str(tmp_path), "--json"]
    processes = [command(*options), command(*options)]
    documents = []
    for process in processes:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        documents.append(json.loads(out)["session"])
    assert documents[0]["key"] == documents[1]["key"]
    assert sorted(document["is_reused"] for document in documents) == [False, True]
    assert [file.suffix for file in (tmp_path / "sessions").iterdir()] == [".session"]


def test_a_session_holds_each_chunk_once(made):
    records = list(Journal(session_file(made[0], made[1])).checked())
    tags = [record.tag for record in records]
    assert tags == [JSON, *[CELLS, ARRAYS] * 6, CELLS, JSON]
