"""The second look: frames at their true times beside the video, asked once, and removed again."""

import json
from dataclasses import replace
from itertools import cycle
from typing import Any

import numpy as np
import pytest
from session_support import command, question_logits

from retake_edge.bench.scenes.brief import make_brief_scene
from retake_edge.bench.scenes.questions import Question, grade
from retake_edge.bench.scenes.render import write_video
from retake_edge.config import (
    CompressionConfig,
    GenerationConfig,
    RetakeConfig,
    RuntimeConfig,
    SamplingConfig,
)
from retake_edge.engine.beside import Beside
from retake_edge.engine.chunks import ChunkBuilder, FrameBlock
from retake_edge.engine.engine import Engine
from retake_edge.errors import ConfigError
from retake_edge.llama.context import Context
from retake_edge.llama.model import Model
from retake_edge.models.manifest import load_manifest
from retake_edge.plan.look import TIMES_CLOSER
from retake_edge.session.closer import Grid, Look, looks, named_times, shown_spans
from retake_edge.session.conversation import Conversation
from retake_edge.session.evidence import Span
from retake_edge.session.look_frames import dropped_moments
from retake_edge.session.open import open_session, open_video
from retake_edge.session.second_look import SecondLook
from retake_edge.session.store.looks import SavedLooks
from retake_edge.session.video_map import VideoMap
from retake_edge.stages import StageTimes
from retake_edge.video.glance import Glanced, Moment
from retake_edge.video.read import OpenVideo
from retake_edge.vision.encoder import VisionEncoder, VisionFeatures

SCENE = make_brief_scene(5, 32, n_cards=4, card_s=0.25)
N_FRAMES = 16


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Cards of a quarter of a second: half of them fall between the frames of a first reading."""
    return write_video(SCENE, tmp_path_factory.mktemp("brief") / "brief.mp4")


def config(look_again=N_FRAMES, n_ctx=None):
    return RetakeConfig(
        compression=CompressionConfig(keep_ratio=0.0625, prefill_chunk_frames=16),
        runtime=RuntimeConfig(n_threads=1, n_ctx=n_ctx),
        generation=GenerationConfig(max_tokens=12),
        look=replace(RetakeConfig().look, frames=look_again),
    )


def opened(video, cache, look_again=N_FRAMES, **more):
    return open_video(video, "tiny", config(look_again, **more), cache_dir=cache)


def number_of(card):
    return Question("number", f"What number is on the {card.colour} card?", str(card.number))


def test_events_between_the_sampled_frames_are_found_again(video, tmp_path):
    with opened(video, tmp_path) as session:
        asked = [number_of(card) for card in SCENE.cards]
        answers = [session.ask(question.text) for question in asked]
    looks = [answer.looked_again for answer in answers]
    first = [grade(q, look.first_text) for q, look in zip(asked, looks, strict=True)]
    texts = [a.looked_again.second_text or a.text for a in answers]
    assert not all(first)
    assert all(grade(q, text) for q, text in zip(asked, texts, strict=True))


def test_the_cache_is_bit_by_bit_as_before(video, tmp_path):
    with opened(video, tmp_path) as session:
        before, n_cells = question_logits(session), session.engine.n_cells
        answers = [session.ask("What number is on the red card?") for _ in range(2)]
        assert answers[0].was_looked_again
        assert answers[0].text == answers[1].text
        assert answers[0].probability == answers[1].probability
        assert session.engine.n_cells == n_cells
        assert session.engine.context.position_max(1) == -1
        np.testing.assert_array_equal(question_logits(session), before)


def test_frames_beside_are_as_if_they_had_been_read_with_the_video():
    """Its first half prefilled and its second beside it, against all of it prefilled.

    The same rows at the same positions see the same cells, so the logits agree to rounding.
    """
    manifest, rng = load_manifest("tiny"), np.random.default_rng(0)
    rows = rng.standard_normal((8, 16, 256)).astype(np.float32)
    times_s = np.arange(8.0)

    def block(part):
        n = len(times_s[part])
        features = VisionFeatures(rows[part], times_s[part], times_s[part] + 0.5, 4, 4, 0.5)
        none = np.zeros((n, 16), np.float32)
        return FrameBlock(features, none, none > 0, int(times_s[part][0]))

    def engine_of(model, context, *parts):
        engine = Engine(context, RetakeConfig(), n_text_reserve=64)
        engine.prefill_text(manifest.prompt.before)
        builder = ChunkBuilder(model, manifest.positions, engine.next_position, 0.0)
        for part in parts:
            engine.prefill_chunk(builder.build(block(part), engine.next_position), 1.0)
        return engine, builder

    def logits(context, position, seq):
        context.decode_tokens(model.tokenize(question), position, seq=seq)
        return context.logits()

    question = manifest.prompt.question("What number is on the red card?")
    exact: dict[str, Any] = {
        "type_k": "f32",
        "type_v": "f32",
        "flash_attention": "off",
        "n_threads": 1,
    }
    with (
        Model(manifest.model) as model,
        Context(model, n_ctx=512, n_seq_max=2, **exact) as context,
    ):
        whole, _ = engine_of(model, context, slice(0, 8))
        expected = logits(context, whole.next_position, 0)
        for before, beside_it in (([slice(0, 2)], slice(2, 8)), ([slice(2, 8)], slice(0, 2))):
            context.clear()
            engine, builder = engine_of(model, context, *before)
            with Beside(engine, manifest.positions, builder, engine.next_position) as beside:
                beside.add(block(beside_it))
                found = logits(context, beside.finish(), 1)
            assert context.position_max(1) == -1
            if before == [slice(0, 2)]:
                np.testing.assert_allclose(found, expected, atol=2e-3)
            else:  # later frames, read before the earlier ones came, did not see them
                assert 2e-3 < np.abs(found - expected).max() < np.abs(expected).max()


def test_no_second_look_is_asked_for_with_0(video, tmp_path):
    with opened(video, tmp_path, 0) as session:
        plain = session.ask("What number is on the red card?")
    with opened(video, tmp_path) as session:
        again = session.ask("What number is on the red card?")
    assert plain.looked_again is None
    assert again.session.is_reused  # the cells are the same with and without
    assert again.looked_again.first_text == plain.text


@pytest.mark.parametrize(("second", "stands"), [(0.85, True), (0.945, False), (0.99, False)])
def test_the_surer_answer_counts(video, tmp_path, monkeypatch, second, stands):
    question = "What number is on the cyan card?"
    with opened(video, tmp_path) as session:
        sure = cycle((0.95, second))
        monkeypatch.setattr("retake_edge.session.session._probability", lambda _: next(sure))
        pieces = list(session.stream(question))
        found = session.last_answer()
    again = found.looked_again
    assert again.first_text == "88"  # that of another card
    assert (again.first_probability, again.first_stands) == (0.95, stands)
    assert "".join(pieces) == found.text == ("88" if stands else "86")
    assert (again.second_text, again.second_probability) == (("86", 0.85) if stands else ("", 0.0))
    assert found.probability == (0.95 if stands else second)
    assert ("the first answer stands" in str(again)) == stands


def test_a_conversation_goes_on_from_the_answer_that_counts(video, tmp_path, monkeypatch):
    asked = [number_of(card).text for card in SCENE.cards[:2]]
    with opened(video, tmp_path) as session, Conversation(session) as talk:
        sure = cycle((0.8, 0.5))
        monkeypatch.setattr("retake_edge.session.session._probability", lambda _: next(sure))
        turns = [talk.ask(question) for question in asked]
        assert all(turn.looked_again.first_stands for turn in turns)
        n_cells, place = session.engine.n_cells, talk._position
        talk.reset()
        for turn in turns:
            talk.recall(turn.question, turn.text)
        assert (session.engine.n_cells, talk._position) == (n_cells, place)


def test_a_look_stays_within_its_frames_and_its_cells(video, tmp_path):
    with opened(video, tmp_path) as session:
        found = session.ask("What number is shown at 0:12?").looked_again
        n_free = session.engine.context.n_ctx - session.engine.n_cells
    assert 0 < found.n_frames <= N_FRAMES
    assert "named" in found.why
    assert all(0 <= start_s < end_s <= 32.01 for start_s, end_s in found.spans)
    assert list(found.spans) == sorted(found.spans)
    assert n_free >= N_FRAMES // 2 * 17 + 12


def test_a_small_context_looks_at_fewer_frames(video, tmp_path):
    with opened(video, tmp_path, n_ctx=1024) as session:
        room = session.second_look.n_affordable(16, 64)
        session.second_look._prefilled.engine.n_cells += 1024 - session.engine.n_cells - 64 - 3 * 17
        assert room == N_FRAMES
        assert session.second_look.n_affordable(16, 64) == 6


def test_without_the_file_the_first_answer_stands(video, tmp_path):
    gone = tmp_path / "gone.mp4"
    gone.write_bytes(video.read_bytes())
    with opened(gone, tmp_path) as session:
        key = session.saved.key
    gone.unlink()
    with open_session(key, config(), cache_dir=tmp_path) as session:
        answer = session.ask("What number is on the red card?")
    assert answer.text
    assert not answer.was_looked_again
    assert "gone.mp4" in answer.looked_again.problem


def test_another_video_of_that_name_is_not_looked_at(video, tmp_path):
    file = tmp_path / "other.mp4"
    file.write_bytes(video.read_bytes())
    with opened(file, tmp_path) as session:
        key = session.saved.key
    write_video(make_brief_scene(6, 32, n_cards=4, card_s=0.25), file)
    with open_session(key, config(), cache_dir=tmp_path) as session:
        assert "changed" in session.ask("What number is on the red card?").looked_again.problem


@pytest.mark.process
def test_what_was_looked_at_is_kept_with_the_session(video, tmp_path, monkeypatch):
    question = "What number is on the red card?"
    with opened(video, tmp_path) as session:
        first = session.ask(question)

    def encode(*_):
        raise AssertionError("frames are encoded again")

    monkeypatch.setattr(VisionEncoder, "encode", encode)
    with opened(video, tmp_path) as session:
        again = session.ask(question)
        assert session.saved.key == first.session.key
    assert again.text == first.text
    assert again.probability == pytest.approx(first.probability, abs=1e-6)
    assert again.looked_again == first.looked_again
    assert list((tmp_path / "sessions").glob("*.looks"))
    run = command("sessions", "rm", first.session.key, "--yes", "--cache-dir", str(tmp_path))
    run.communicate()
    assert not list((tmp_path / "sessions").glob("*.looks"))


def test_turns_of_a_conversation_look_again_and_leave_only_their_text(video, tmp_path):
    asked = [number_of(card).text for card in SCENE.cards[:2]]
    with opened(video, tmp_path) as session, Conversation(session) as talk:
        turns = [talk.ask(question) for question in asked]
        assert turns[0].was_looked_again
        n_cells, place = session.engine.n_cells, talk._position
        talk.reset()
        for turn in turns:
            talk.recall(turn.question, turn.text)
        assert (session.engine.n_cells, talk._position) == (n_cells, place)
        assert session.engine.context.position_max(1) == -1


@pytest.mark.process
def test_ask_tells_what_it_looked_at_again(video, tmp_path):
    arguments = [str(video), "What number is on the red card?", "-m", "tiny", "-t", "1"]
    run = command("ask", *arguments, "--look-again", "16", "--cache-dir", str(tmp_path))
    answer, told = run.communicate()
    assert run.returncode == 0
    assert answer.strip()
    assert "looked again at" in told
    run = command("ask", *arguments, "--look-again", "0", "--json", "--cache-dir", str(tmp_path))
    document = json.loads(run.communicate()[0])
    assert document["looked_again"] is None
    assert 0 < document["probability"] <= 1


def test_a_negative_number_of_frames_is_refused():
    with pytest.raises(ConfigError, match="--look-again is -1"):
        config(-1)


def test_looks_do_not_overlap_and_are_no_more_than_asked():
    rng = np.random.default_rng(0)
    times_s = np.arange(60.0)
    for _ in range(200):
        grid = Grid(0.0, 1 / 8, 60.0, 2)
        spans = [
            Span(float(a), float(a + rng.integers(1, 9)), 0.3, (float(a),))
            for a in rng.integers(0, 50, rng.integers(0, 4))
        ]
        moments = [Moment(float(t) / 8, 9.0) for t in rng.integers(0, 480, rng.integers(0, 12))]
        n = int(rng.integers(2, 40))
        weights = rng.random(60).astype(np.float32)
        kind = {name: bool(rng.random() < 0.5) for name in ("is_sure", "are_larger")}
        found = looks(grid, n, "at 0:30?", spans, weights, times_s, moments, **kind)
        frames = [i for look in found for i in range(look.first, look.first + look.n)]
        assert len(frames) == len(set(frames)) <= n
        assert frames == sorted(frames)
        assert all(0 <= i < grid.n for i in frames)


def test_an_unsure_answer_is_looked_at_in_more_places():
    times_s, weights = np.arange(60.0), np.ones(60, np.float32)
    spans = [Span(float(a), a + 2.0, 0.3, (float(a),)) for a in (5, 25, 45)]
    grid = Grid(0.0, 1 / 8, 60.0, 2)
    n = [
        len(looks(grid, 24, "", spans, weights, times_s, [], is_sure=sure, are_larger=False))
        for sure in (True, False)
    ]
    assert n == [1, 3]


def test_frames_that_an_unsure_answer_leaves_go_to_the_heaviest_seconds():
    times_s, weights = np.arange(60.0), np.linspace(0, 0.1, 60, dtype=np.float32)
    weights[[40, 50]] = 1, 0.5
    grid = Grid(0.0, 1 / 2, 60.0, 2)
    span = Span(20.0, 21.0, 0.3, (20.0,))
    sure, unsure = (
        looks(grid, 8, "", [span], weights, times_s, [], is_sure=is_sure, are_larger=False)
        for is_sure in (True, False)
    )
    assert sum(look.n for look in sure) == 4
    seen = {grid.time_s(look.first + i) for look in unsure for i in range(look.n)}
    assert sum(look.n for look in unsure) == 8 and {40.0, 40.5, 50.0, 50.5} <= seen


@pytest.mark.parametrize("is_sure", [True, False])
def test_larger_frames_go_to_the_peaks_of_attention_however_sure_the_answer_is(is_sure):
    times_s, weights = np.arange(60.0), np.zeros(60, np.float32)
    weights[[10, 20, 30, 40, 50]] = 0.3, 0.2, 0.1, 0.08, 0.05
    weights[[11, 12, 21]] = 0.25, 0.22, 0.15  # beside peaks: they come after all of these
    grid, span = Grid(0.0, 1 / 2, 60.0, 2), Span(9.0, 14.0, 0.8, (10.0,))
    kind = {"is_sure": is_sure, "are_larger": True}
    found = looks(grid, 10, "", [span], weights, times_s, [], **kind)
    assert [grid.time_s(look.first) for look in found] == [10.0, 20.0, 30.0, 40.0, 50.0]
    found = looks(grid, 10, "at 0:55?", [span], weights, times_s, [], **kind)
    assert [(grid.time_s(look.first), look.why) for look in found] == [
        *((at_s, "evidence") for at_s in (10.0, 20.0, 30.0)),
        (55.0, "named"),
    ]


def test_a_video_is_glanced_at_once_while_it_is_read_if_it_is_read_for_that(
    video, tmp_path, monkeypatch
):
    glances, glance = [], OpenVideo.glance

    def counted(*arguments):
        glances.append(arguments)
        return glance(*arguments)

    monkeypatch.setattr(OpenVideo, "glance", counted)
    questions = [number_of(card).text for card in SCENE.cards]
    with opened(video, tmp_path / "for it") as session:
        meanwhile = [session.ask(question).looked_again for question in questions]
    assert not glances
    with opened(video, tmp_path / "for none", look_again=0):
        pass
    for _ in range(2):
        with opened(video, tmp_path / "for none") as session:
            later = [session.ask(question).looked_again for question in questions]
        assert len(glances) == 1
    assert [look.spans for look in later] == [look.spans for look in meanwhile]


def test_a_frame_counts_as_seen_while_a_cell_of_it_is_kept():
    """Two frames each half a second make a grid frame; text is no cell of it."""
    levels = np.full((16, 12, 12, 3), 10, np.uint8)
    levels[4:6] = 90
    glanced = Glanced([], np.arange(0, 8, 0.5), levels)
    for third, expected in ((2, []), (-1 - 2, [Moment(2.0, 80.0)])):
        cells = np.array([[0, 1, third, 3, 5], [0, 1, 3, 5, -1 - 7]], np.int32)
        kept = VideoMap(np.arange(8.0), np.zeros(8, np.float32), cells)
        assert dropped_moments(glanced, kept) == expected


@pytest.mark.parametrize("in_place", [False, True])
def test_frames_in_place_hide_what_was_kept_of_their_seconds(video, tmp_path, in_place):
    """Frames of all seconds, beside a video of which a sixteenth is kept, and all."""
    found = []
    for keep_ratio in (0.0625, 1.0):
        settings = replace(config(n_ctx=4096), compression=CompressionConfig(keep_ratio=keep_ratio))
        with open_video(video, "tiny", settings, cache_dir=tmp_path) as session:
            look, context = session.second_look, session.engine.context
            [every] = look.file.features([Look(0, look.file.grid.n, "evidence")], StageTimes())
            prompt = session.manifest.prompt.question("What number is on the red card?")
            with look.beside(session.engine.next_position, in_place=in_place) as beside:
                beside.add(look.block(every))
                tokens = session.engine.model.tokenize(prompt)
                context.decode_tokens(tokens, beside.finish(), seq=1)
                found.append(context.logits())
    assert (float(np.abs(found[0] - found[1]).max()) < 0.3) == in_place


def test_larger_frames_are_not_denser(video, tmp_path):
    tiny = load_manifest("tiny")
    any_size = replace(tiny.frames, width_px=None, height_px=None, long_side_px=112)
    small = replace(config(), sampling=SamplingConfig(long_side_px=56))
    model = replace(tiny, frames=any_size)
    with open_video(video, model, small, cache_dir=tmp_path) as session:
        found = session.ask("What number is shown at 0:12?").looked_again
    with opened(video, tmp_path) as session:
        usual = session.ask("What number is shown at 0:12?").looked_again
    assert usual.fps == TIMES_CLOSER * found.fps
    whole = replace(small, compression=CompressionConfig(keep_ratio=1))
    with open_video(video, model, whole, cache_dir=tmp_path) as session:
        of_whole = session.ask("What number is shown at 0:12?").looked_again
    assert "unseen" in found.why and "unseen" not in of_whole.why  # all frames are kept there


def test_clock_times_of_a_question_are_seconds():
    assert named_times("What is said at 1:02:03, and at 0:14?") == [3723.0, 14.0]
    assert named_times("Is the ratio 16:9 or 4:3?") == []
    assert named_times("at 12:75 or 1:2:3") == []


def test_spans_that_touch_are_told_as_one():
    assert shown_spans([(10.0, 12.0), (4.25, 4.5), (12.0, 13.0)]) == "0:04-0:05, 0:10-0:13"


def test_a_damaged_file_of_looks_is_done_without(tmp_path):
    file = tmp_path / "key.looks"
    file.write_bytes(b"no archive")
    saved = SavedLooks(file)
    assert saved.glanced() is None
    saved.keep_glanced(Glanced([Moment(1.5, 9.0)], np.arange(3.0), np.ones((3, 12, 12, 3), "u1")))
    found = SavedLooks(file).glanced()
    assert found.moments == [Moment(1.5, 9.0)]
    assert found.seen_s.tolist() == [0, 1, 2] and found.seen.sum() == 3 * 12 * 12 * 3


def test_the_oldest_looks_make_room(tmp_path, monkeypatch):
    monkeypatch.setattr("retake_edge.session.store.looks.MOST_BYTES", 5000)
    saved = SavedLooks(tmp_path / "key.looks")
    times_s = np.zeros(1)
    for name in "abc":
        rows = np.zeros((1, 4, 250), np.float32)
        saved.keep(name, VisionFeatures(rows, times_s, times_s, 2, 2, 0.125))
    assert [saved.features(name) is None for name in "abc"] == [True, False, False]


def test_a_model_without_plain_cells_is_told_so(video, tmp_path, monkeypatch):
    monkeypatch.setattr(SecondLook, "why_not", "no plain cells")
    with opened(video, tmp_path) as session:
        answer = session.ask("What number is on the red card?")
    assert answer.looked_again.problem == "no plain cells"
    assert str(answer.looked_again) == "not looked at again: no plain cells"
