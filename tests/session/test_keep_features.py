"""Features kept of a first reading: whole after any stop, and looked at when the file is gone."""

import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from session_support import MODEL, QUESTION, VIDEO, command, opened, question_logits, settings

from retake_edge.bench.scenes.questions import Question, clock, grade
from retake_edge.bench.scenes.render import write_video
from retake_edge.bench.scenes.scene import make_scene
from retake_edge.config import (
    CompressionConfig,
    GenerationConfig,
    LookConfig,
    RetakeConfig,
    RuntimeConfig,
)
from retake_edge.errors import SessionError
from retake_edge.session.closer import SampledGrid, looks
from retake_edge.session.conversation import Conversation
from retake_edge.session.evidence import Span
from retake_edge.session.look_frames import kept_steps
from retake_edge.session.open import open_session, open_video
from retake_edge.session.prefilled import SessionWarning
from retake_edge.session.run import Run
from retake_edge.session.store.features import FeatureRecorder, SavedFeatures
from retake_edge.session.store.folder import SessionStore
from retake_edge.vision.encoder import VisionEncoder, VisionFeatures

SCENE = make_scene(7, 32, n_cards=6, card_s=1, difficulty="hard")


def keeping(**options):
    return replace(settings(**options), look=LookConfig(frames=8, keep_features=True))


def features_of(session):
    return session.second_look.kept


def encoded(video, config, monkeypatch, cache):
    """All features of a video as the tower gave them, f32 [T, N, C]."""
    encode, found = VisionEncoder.encode, []

    def keep(self, *arguments):
        features = encode(self, *arguments)
        found.append(features)
        return features

    with monkeypatch.context() as patch:
        patch.setattr(VisionEncoder, "encode", keep)
        opened(cache, config, video=video).close()
    return np.concatenate([part.embeddings for part in found])


# --- what is kept ------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"policy": "frames", "kv_budget": 96}])
def test_the_features_are_those_of_the_tower_in_f16(tmp_path, monkeypatch, more):
    """Also of the frames that a policy leaves out."""
    rows = encoded(VIDEO, keeping(**more), monkeypatch, tmp_path)
    with opened(tmp_path, keeping(**more)) as session:
        kept, times_s = features_of(session), session.video_map.frame_times_s
        assert session.saved.is_reused
    found = kept.between(0, kept.n_steps)
    np.testing.assert_array_equal(found.embeddings, rows.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(found.times_s, times_s)
    for first, end in ((0, 1), (3, 6), (5, 12), (11, 12)):
        part = kept.between(first, end)
        np.testing.assert_array_equal(part.embeddings, found.embeddings[first:end])
        np.testing.assert_array_equal(part.middle_s, found.middle_s[first:end])


def test_what_stands_still_is_kept_once_and_comes_back_for_each_frame(tmp_path):
    rows = np.random.default_rng(0).standard_normal((7, 4, 6)).astype(np.float32)
    is_new = np.array([True, False, True, False, False, False, True])
    rows = rows[np.flatnonzero(is_new)][np.cumsum(is_new) - 1]
    times_s = np.arange(7.0)
    video = VisionFeatures(rows, times_s, times_s + 0.5, 2, 2, 0.5, is_new)
    sizes = []
    for part in (video, replace(video, is_new=None)):
        recorder = FeatureRecorder(tmp_path / "a", 3, 0)
        recorder.begin("key", non_causal=False)
        for i in range(0, 7, 2):
            recorder.add(part[i : i + 2])
        recorder.finish()
        sizes.append((tmp_path / "a").stat().st_size)
        kept = SavedFeatures(tmp_path / "a", "key")
        assert (kept.n_steps, kept.n_tokens, kept.non_causal) == (7, 4, False)
        expected = rows.astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(kept.between(0, 7).embeddings, expected)
        assert kept.between(2, 5).times_s.tolist() == [2.0, 3.0, 4.0]
    assert sizes[0] < sizes[1]


def test_the_same_cells_are_made_with_and_without(tmp_path):
    with opened(tmp_path / "a") as plain, opened(tmp_path / "b", keeping()) as kept:
        assert kept.saved.key == plain.saved.key
        assert np.array_equal(question_logits(plain), question_logits(kept))


def test_they_are_counted_and_removed_with_the_session(tmp_path):
    store = SessionStore(tmp_path)
    with opened(tmp_path, keeping()) as session:
        key, n_bytes = session.saved.key, session.saved.n_bytes
    sizes = {file.suffix: file.stat().st_size for file in store.folder.iterdir()}
    assert set(sizes) == {".session", ".features", ".looks"}
    assert n_bytes == store.sessions()[0].n_bytes == sum(sizes.values())
    assert store.remove(key) == n_bytes
    assert list(store.folder.iterdir()) == []


@pytest.mark.process
def test_a_plan_tells_their_size(tmp_path):
    arguments = ["plan", str(VIDEO), "-m", str(MODEL.model), "-mm", str(MODEL.mmproj)]
    arguments += ["--fps", "8", "--long-side", "112", "--json"]
    document = json.loads(command(*arguments, "--keep-features").communicate()[0])
    with opened(tmp_path, keeping()) as session:
        rows = features_of(session).between(0, 12).embeddings
    assert document["feature_bytes"] == 2 * rows.size
    size = SessionStore(tmp_path).features(session.saved.key).stat().st_size
    assert 2 * rows.size < size < 2 * rows.size + 16384
    assert json.loads(command(*arguments).communicate()[0])["feature_bytes"] == 0


# --- stops, full disks, earlier readings -------------------------------------------------------


@pytest.mark.parametrize("n_chunks", [1, 3, 6])
def test_a_stopped_reading_goes_on_and_keeps_all_of_them(tmp_path, monkeypatch, n_chunks):
    take, taken = Run._take, []

    def stopping(self, *arguments, **options):
        take(self, *arguments, **options)
        taken.append(1)
        if len(taken) == n_chunks:
            raise KeyboardInterrupt

    with opened(tmp_path / "whole", keeping()) as session:
        key = session.saved.key
    monkeypatch.setattr(Run, "_take", stopping)
    with pytest.raises(KeyboardInterrupt):
        opened(tmp_path / "stopped", keeping())
    monkeypatch.undo()
    store = SessionStore(tmp_path / "stopped")
    with store.features(key).open("ab") as file:
        file.write(b"half a record")  # as a kill leaves it
    opened(tmp_path / "stopped").close()  # it goes on as it began
    whole = SessionStore(tmp_path / "whole").features(key).read_bytes()
    assert store.features(key).read_bytes() == whole


def test_a_reading_that_began_without_them_begins_anew(tmp_path, monkeypatch):
    take = Run._take

    def stopping(self, *arguments, **options):
        take(self, *arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "_take", stopping)
    with pytest.raises(KeyboardInterrupt):
        opened(tmp_path)
    monkeypatch.undo()
    with opened(tmp_path, keeping()) as session:
        assert features_of(session).n_steps == 12


def test_a_session_without_them_is_read_again_and_told_so(tmp_path):
    notes = []
    opened(tmp_path).close()
    with opened(tmp_path, keeping(), on_note=notes.append) as session:
        assert features_of(session).n_steps == 12 and not session.saved.is_reused
    assert notes == ["note: this video was read without --keep-features, so it is read again"]
    for config in (keeping(), settings()):
        with opened(tmp_path, config, on_note=notes.append) as session:
            assert session.saved.is_reused and features_of(session) is not None
    assert len(notes) == 1


@pytest.mark.parametrize("n_written", [0, 1, 4])
def test_a_full_disk_costs_the_features_alone(tmp_path, monkeypatch, n_written):
    """No record, one, some; the next time the video is not read again for them."""
    write, written = FeatureRecorder._write, []

    def failing(self):
        if len(written) == n_written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(1)
        write(self)

    monkeypatch.setattr(FeatureRecorder, "_write", failing)
    told = pytest.warns(SessionWarning, match="features cannot be saved .No space left")
    with told, opened(tmp_path, keeping()) as session:
        assert session.saved.key and features_of(session) is None
        assert session.ask(QUESTION).was_looked_again  # at the file
    monkeypatch.undo()
    assert {file.suffix for file in SessionStore(tmp_path).folder.iterdir()} == {
        ".session",
        ".looks",
    }
    with opened(tmp_path, keeping()) as session:
        assert session.saved.is_reused


def test_the_room_of_the_session_is_not_taken(tmp_path, monkeypatch):
    """Room for all of the features, but not for the cells as well."""
    with opened(tmp_path / "a", keeping()) as session:
        n_cells = session.video.kv_bytes
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=n_cells))
    with pytest.warns(SessionWarning, match="features"), opened(tmp_path / "b", keeping()) as other:
        assert other.saved.key and features_of(other) is None


def test_a_session_that_cannot_be_saved_leaves_no_features(tmp_path, monkeypatch):
    from retake_edge.session.store.checkpoint import Recorder

    def failing(self, parts):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Recorder, "_write", failing)
    told = pytest.warns(SessionWarning, match="session cannot be saved")
    with told, opened(tmp_path, keeping()) as session:
        assert session.saved.key == ""
    assert list(SessionStore(tmp_path).folder.iterdir()) == []


@pytest.mark.parametrize("at", [40, -10])
def test_damaged_features_are_not_looked_at(tmp_path, at):
    """The head, or the end."""
    gone = tmp_path / "gone.mp4"
    shutil.copy(VIDEO, gone)
    with opened(tmp_path, keeping(), video=gone) as session:
        key = session.saved.key
    file = SessionStore(tmp_path).features(key)
    content = bytearray(file.read_bytes())
    content[at] ^= 4
    file.write_bytes(content)
    gone.unlink()
    with open_session(key, keeping(), cache_dir=tmp_path) as session:
        assert features_of(session) is None
        assert "gone.mp4" in session.ask(QUESTION).looked_again.problem


def test_a_damaged_record_is_an_error(tmp_path):
    with opened(tmp_path, keeping()) as session:
        kept = features_of(session)
        file = SessionStore(tmp_path).features(session.saved.key)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)
    with pytest.raises(SessionError, match="damaged"):
        kept.between(0, 12)
    with pytest.raises(SessionError):
        SavedFeatures(file, "another key")


# --- the second look without the file ----------------------------------------------------------


def tiny(frames=16, keep_features=True):
    return RetakeConfig(
        compression=CompressionConfig(keep_ratio=0.03125, policy="uniform"),
        runtime=RuntimeConfig(n_threads=1),
        generation=GenerationConfig(max_tokens=12),
        look=LookConfig(frames=frames, keep_features=keep_features),
    )


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """A cache with a video of which very little was kept, and whose file is gone."""
    folder = tmp_path_factory.mktemp("gone")
    video = write_video(SCENE, folder / "talk.mp4")
    with open_video(video, "tiny", tiny(), cache_dir=folder) as session:
        key = session.saved.key
    video.rename(folder / "moved.mp4")
    return folder, key


def questions():
    return [
        Question("number_at", f"What number is shown at {clock(card.start_s)}?", str(card.number))
        for card in SCENE.cards
    ]


def test_what_was_kept_gets_answers_back(read):
    folder, key = read
    with open_session(key, tiny(), cache_dir=folder) as session:
        answers = [session.ask(question.text) for question in questions()]
        dropped_s = session.video_map.frame_times_s[~kept_steps(session.video_map)]
    pairs = list(zip(questions(), answers, strict=True))
    first = [grade(q, a.looked_again.first_text) for q, a in pairs]
    again = [grade(q, a.text) for q, a in pairs]
    assert sum(again) > sum(first)
    for answer in answers:
        look = answer.looked_again
        assert answer.was_looked_again and "talk.mp4" in look.without_file
        assert "as kept of the first reading" in str(look)
        assert 0 < look.n_frames <= 16 and look.fps == 2
        assert all(0 <= start_s < end_s <= 32 for start_s, end_s in look.spans)
        spans = zip(look.spans, look.why, strict=True)
        unseen = [start_s for (start_s, _), why in spans if why == "unseen"]
        assert unseen and set(unseen) <= set(dropped_s.tolist())


def test_the_kept_frames_stand_at_their_true_times(read):
    """All of them beside a video of which next to nothing was kept, against all of it kept."""
    folder, key = read
    whole = replace(tiny(0), compression=CompressionConfig(keep_ratio=1))
    with open_video(folder / "moved.mp4", "tiny", whole, cache_dir=folder / "whole") as session:
        expected = [session.ask(question.text).text for question in questions()]
    with open_session(key, tiny(1000), cache_dir=folder) as session:
        look, kept = session.second_look, session.second_look.kept
        block = look.block(kept.between(0, kept.n_steps))
        prompts = [session.manifest.prompt.question(q.text) for q in questions()]
        found = []
        for prompt in prompts:
            with look.beside(session.engine.next_position) as beside:
                beside.add(block)
                tokens = list(beside.generate(prompt))
            found.append("".join(session.engine.model.piece(t).decode() for t in tokens).strip())
    assert found == expected


def test_turns_of_a_conversation_look_at_what_was_kept(read):
    folder, key = read
    with open_session(key, tiny(), cache_dir=folder) as session, Conversation(session) as talk:
        turn = talk.ask(questions()[0].text)
        assert turn.was_looked_again and turn.looked_again.without_file


@pytest.mark.process
def test_ask_tells_that_it_did_not_look_at_the_file(read):
    folder, key = read
    asked = ["ask", key, questions()[0].text, "--look-again", "16", "-t", "1"]
    run = command(*asked, "--cache-dir", str(folder))
    answer, told = run.communicate()
    assert run.returncode == 0 and answer.strip()
    assert "as kept of the first reading and not in the file" in told
    run = command(*asked, "--json", "--cache-dir", str(folder))
    document = json.loads(run.communicate()[0])
    assert "talk.mp4" in document["looked_again"]["without_file"]


def test_a_file_that_cannot_be_read_any_more_is_as_one_that_is_gone(tmp_path):
    video = write_video(SCENE, tmp_path / "talk.mp4")
    with open_video(video, "tiny", tiny(), cache_dir=tmp_path) as session:
        video.write_bytes(b"no video")
        answer = session.ask(questions()[0].text)
        assert answer.was_looked_again and answer.looked_again.without_file
    assert Path(session.video.path) == video


def test_looks_at_sampled_frames_take_whole_ones_in_the_seconds_wanted():
    rng = np.random.default_rng(0)
    for _ in range(100):
        times_s = np.cumsum(rng.uniform(0.1, 3, 40))
        grid = SampledGrid(times_s, float(times_s[-1]) + 1, 2)
        assert grid.n == 80 and grid.time_s(0) == times_s[0]
        assert [grid.time_s(2 * i) for i in range(40)] == times_s.tolist()
        assert [grid.at(time_s) for time_s in times_s] == pytest.approx(list(range(0, 80, 2)))
        first = int(rng.integers(2, 30))
        span = Span(float(times_s[first]), float(times_s[first + 3]), 0.5, ())
        found = looks(grid, 12, "", [span], None, times_s, (), is_sure=False, are_larger=False)
        frames = [i for look in found for i in range(look.first, look.first + look.n)]
        assert 2 <= len(frames) <= 12 and frames[0] % 2 == 0 and len(frames) % 2 == 0
        assert first - 2 <= frames[0] // 2 and frames[-1] // 2 <= first + 4
