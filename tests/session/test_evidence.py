"""Where an answer looked: attention on a real cache, its spans of time, and their frames."""

import cv2
import numpy as np
import pytest
from native_support import Q_BYTES, Kvc
from session_support import QUESTION, opened, question_logits

from retake_edge.bench.scenes.render import render_frame, write_video
from retake_edge.bench.scenes.scene import Scene, Segment
from retake_edge.engine.attention import MOST_QUERIES
from retake_edge.errors import ConfigError
from retake_edge.llama import capture as kvc
from retake_edge.llama.capture import Capture, cells_used
from retake_edge.report.pictures import save_frames
from retake_edge.session.evidence import (
    Span,
    attended_spans,
    evidence_line,
    frame_weights,
    without_sinks,
)


def even(n, **peaks):
    """Weights of n frames: the peaks given as f3=0.5, the rest shared evenly."""
    weights = np.full(n, (1 - sum(peaks.values())) / (n - len(peaks)), np.float32)
    for name, value in peaks.items():
        weights[int(name[1:])] = value
    return weights


# -- cells to frames ---------------------------------------------------------------------------


def test_a_frame_gets_the_attention_of_its_cells_in_the_later_layers():
    attention = np.array([[0, 0, 1], [1, 0, 0], [0.5, 0.25, 0.25], [0, 1, 0]], np.float32)
    cell_frames = np.array([[3, 3, 3], [3, 3, 3], [0, 2, 2], [1, 2, 3]], np.int32)
    assert frame_weights(attention, cell_frames, 4).tolist() == [0.25, 0, 0.75, 0]


def test_a_model_of_one_layer_has_frame_weights_too():
    attention = np.array([[0.75, 0.25]], np.float32)
    assert frame_weights(attention, np.array([[1, 0]], np.int32), 2).tolist() == [0.25, 0.75]


def test_clock_text_counts_for_the_frame_it_precedes():
    attention = np.array([[0.75, 0.25]], np.float32)
    assert frame_weights(attention, np.array([[-1 - 1, 0]], np.int32), 2).tolist() == [0.25, 0.75]


# -- frames to spans ---------------------------------------------------------------------------


def spans_of(weights, **options):
    return attended_spans(
        weights, np.arange(len(weights), dtype=np.float64) * 2, len(weights) * 2.0, **options
    )


def test_even_attention_points_nowhere():
    assert spans_of(np.full(50, 0.02, np.float32)) == []


def test_a_span_ends_where_the_next_frame_begins():
    (span,) = spans_of(even(20, f7=0.5))
    assert (span.start_s, span.end_s, span.frame_times_s) == (14.0, 16.0, (14.0,))
    assert span.weight == pytest.approx(0.5)


def test_the_last_span_ends_with_the_video():
    (span,) = attended_spans(even(20, f19=0.5), np.arange(20, dtype=np.float64) * 2, 39.25)
    assert (span.start_s, span.end_s) == (38.0, 39.25)


def test_a_span_takes_in_neighbours_of_enough_weight_and_stops_at_a_gap():
    weights = even(40, f9=0.1, f10=0.3, f11=0.2, f13=0.1)
    span = spans_of(weights)[0]
    assert span.frame_times_s == (18.0, 20.0, 22.0)
    assert span.weight == pytest.approx(0.6)


def test_spans_come_by_weight_and_faint_ones_are_left_out():
    spans = spans_of(even(100, f10=0.1, f40=0.4, f70=0.2))
    assert [span.start_s for span in spans] == [80.0, 140.0]


def test_at_most_three_spans_are_told():
    spans = spans_of(even(200, f10=0.2, f50=0.2, f90=0.2, f130=0.2))
    assert len(spans) == 3
    assert len(spans_of(even(200, f10=0.4, f50=0.4), max_spans=1)) == 1


@pytest.mark.parametrize("seed", range(20))
def test_spans_of_any_attention_are_apart_sorted_and_within_the_video(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 300))
    weights = rng.dirichlet(np.full(n, rng.choice([0.02, 0.2, 2.0]))).astype(np.float32)
    times_s = np.cumsum(rng.uniform(0.1, 3.0, n))
    spans = attended_spans(weights, times_s, float(times_s[-1] + 1))
    assert [s.weight for s in spans] == sorted((s.weight for s in spans), reverse=True)
    frames = [t for span in spans for t in span.frame_times_s]
    assert len(frames) == len(set(frames))
    for span in spans:
        inside = (times_s >= span.start_s) & (times_s < span.end_s)
        assert tuple(times_s[inside]) == span.frame_times_s
        assert span.weight == pytest.approx(float(weights[inside].sum()), abs=1e-6)


def test_spans_beside_each_other_are_one():
    spans = spans_of(even(100, f10=0.4, f12=0.3))
    assert [(span.start_s, span.end_s) for span in spans] == [(20.0, 26.0)]
    assert spans[0].weight == pytest.approx(0.7, abs=0.01)
    assert len(spans_of(even(100, f10=0.4, f13=0.3))) == 2


def test_a_small_share_is_not_told_beside_the_first_span():
    assert len(spans_of(even(100, f10=0.3, f40=0.16))) == 2
    assert len(spans_of(even(100, f10=0.3, f40=0.14))) == 1


def test_what_the_edges_get_whatever_is_asked_is_taken_off():
    weights, idle = even(50, f0=0.5, f49=0.1, f20=0.25), even(50, f0=0.6, f49=0.1)
    (span,) = spans_of(without_sinks(weights, idle))
    assert (span.start_s, span.end_s) == (40.0, 42.0)
    assert without_sinks(weights, idle).sum() == pytest.approx(1, abs=1e-5)


def test_an_answer_at_an_edge_stays_where_nothing_else_looks_there():
    weights, idle = even(50, f0=0.5), even(50, f30=0.3)
    assert spans_of(without_sinks(weights, idle))[0].start_s == 0.0


def test_all_attention_on_a_sink_is_left_as_it_is():
    weights = np.array([1, 0, 0], np.float32)
    assert without_sinks(weights, weights).tolist() == [1, 0, 0]


def test_the_line_tells_the_heaviest_span_first_with_its_share():
    spans = [Span(841.0, 849.9, 0.444, (841.0,)), Span(36.0, 36.9, 0.206, (36.0,))]
    assert evidence_line(spans) == "at 14:01-14:09 (44 %), 0:36 (21 %)"
    assert evidence_line([]) == ""
    assert str(Span(3599.0, 3661.0, 0.1, ())) == "59:59-1:01:01"


# -- the attention of a real answer ------------------------------------------------------------


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    with opened(tmp_path_factory.mktemp("cache")) as made:
        yield made


def test_the_recorded_attention_is_that_of_the_rows_that_predict_the_answer(session):
    engine, context = session.engine, session.engine.context
    recorder = session.video_attention()
    answer = list(engine.generate(prompt := session.manifest.prompt.question(QUESTION), recorder))
    question = engine.model.tokenize(prompt)
    n = len(question)
    window = (recorder.first_cell, recorder.n_cells)
    with Capture(context, n_max=n + len(answer)) as capture:
        # One by one, as the answer was made, so that both have the same rounding.
        context.decode_tokens(question, engine.next_position)
        for i, token in enumerate(answer):
            context.decode_tokens([token], engine.next_position + n + i)
        rows = [capture.attention(i, 1, *window) for i in range(n + len(answer))]
    assert len(answer) > 2
    assert np.abs(recorder.weights - np.mean(rows[n - 1 : -1], axis=0)).max() < 1e-5
    assert recorder.weights.shape == session.video_map.cell_frames.shape
    assert np.abs(recorder.weights.sum(axis=1) - 1).max() < 1e-3


def test_recording_changes_neither_the_answer_nor_the_cache(session):
    prompt = session.manifest.prompt.question(QUESTION)
    before = cells_used(session.engine.context), question_logits(session)
    silent = list(session.engine.generate(prompt))
    assert list(session.engine.generate(prompt, session.video_attention())) == silent
    assert cells_used(session.engine.context) == before[0]
    assert np.array_equal(question_logits(session), before[1])


def test_what_is_decoded_while_recording_stays(session):
    context, before = session.engine.context, cells_used(session.engine.context)
    recorder, tokens = session.video_attention(), session.engine.model.tokenize(QUESTION)
    with recorder.recorded(context, len(tokens), 1):
        context.decode_tokens(tokens, session.engine.next_position)
    assert cells_used(context) == before + len(tokens)
    assert recorder.weights is not None
    context.remove(session.engine.next_position)


@pytest.mark.parametrize("n_queries", [1, 2, 3])
def test_attention_added_up_in_parts_is_that_of_the_whole_answer(session, monkeypatch, n_queries):
    prompt = session.manifest.prompt.question(QUESTION)
    whole, parts = session.video_attention(), session.video_attention()
    answer = list(session.engine.generate(prompt, whole))
    assert len(answer) > n_queries
    monkeypatch.setattr("retake_edge.engine.attention.MOST_QUERIES", n_queries)
    assert list(session.engine.generate(prompt, parts)) == answer
    assert np.abs(parts.weights - whole.weights).max() < 1e-6


def test_a_long_answer_keeps_no_more_queries_than_a_short_one(session):
    context, n_bytes = session.engine.context, []
    for n_answer_max in (MOST_QUERIES, 3000):
        with session.video_attention().recorded(context, 5, n_answer_max):
            n_bytes.append(Kvc(context).query(Q_BYTES))
    assert n_bytes[0] == n_bytes[1] > 0


@pytest.mark.parametrize("call", ["retake_kvc_begin", "retake_kvc_attention"])
@pytest.mark.parametrize("n_before", [0, 1, 2])
def test_a_failed_allocation_costs_the_evidence_and_not_the_answer(
    session, monkeypatch, call, n_before
):
    """The library refuses for lack of memory, at once or when some queries were added up."""
    prompt = session.manifest.prompt.question(QUESTION)
    expected = list(session.engine.generate(prompt))
    before = cells_used(session.engine.context)
    lib, n_calls = LackingMemory(kvc._library(), call, n_before), len(expected)
    assert n_calls > n_before
    monkeypatch.setattr("retake_edge.engine.attention.MOST_QUERIES", 1)
    monkeypatch.setattr(kvc, "_library", lambda: lib)
    recorder = session.video_attention()
    assert list(session.engine.generate(prompt, recorder)) == expected
    assert recorder.weights is None
    assert cells_used(session.engine.context) == before
    monkeypatch.undo()
    assert session.ask(QUESTION).text


class LackingMemory:
    """The native library, with one of its functions out of memory after some calls."""

    def __init__(self, lib, name, n_before):
        self._lib, self._name, self._n_left = lib, name, n_before

    def __getattr__(self, name):
        return self._refuse if name == self._name else getattr(self._lib, name)

    def _refuse(self, *arguments):
        self._n_left -= 1
        return getattr(self._lib, self._name)(*arguments) if self._n_left >= 0 else -6


def test_an_answer_that_is_not_read_to_its_end_has_no_attention(session):
    recorder, before = session.video_attention(), cells_used(session.engine.context)
    stream = session.engine.generate(session.manifest.prompt.question(QUESTION), recorder)
    next(stream)
    stream.close()
    assert recorder.weights is None
    assert cells_used(session.engine.context) == before
    assert session.ask(QUESTION).text


def test_another_question_looks_elsewhere(session):
    session.ask(QUESTION)
    first = session.frame_weights
    session.ask("When does the second one begin?")
    assert np.abs(session.frame_weights - first).max() > 1e-4


def test_evidence_of_an_answer_lies_within_its_video(session):
    answer = session.ask(QUESTION)
    assert session.frame_weights.sum() == pytest.approx(1, abs=1e-4)
    assert session.frame_weights.min() >= 0
    assert len(session.frame_weights) == answer.video.n_grid_frames
    for span in answer.to_dict()["evidence"]:
        assert set(span) == {"start_s", "end_s", "weight", "frame_times_s"}
        assert 0 <= span["start_s"] < span["end_s"] <= answer.video.duration_s
        assert set(span["frame_times_s"]) <= set(session.video_map.frame_times_s)


# -- its frames as files -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def striped(tmp_path_factory):
    """A video whose background changes every two seconds."""
    tints = [(200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 40)]
    segments = tuple(
        Segment(2.0 * i, 2.0 * i + 2, "circle", "white", "still", "plain", size=0.1, tint=tint)
        for i, tint in enumerate(tints)
    )
    scene = Scene(0, 8.0, segments, ())
    return scene, write_video(scene, tmp_path_factory.mktemp("video") / "striped.mp4", fps=4)


SPANS = [Span(4.0, 6.0, 0.5, (4.0, 5.0)), Span(1.5, 2.0, 0.2, (1.5,))]


def test_frames_of_spans_are_saved_by_time(striped, tmp_path):
    scene, video = striped
    folder = tmp_path / "new" / "frames"
    paths = save_frames(video, SPANS, folder, fps=1)
    assert [path.name for path in paths] == [
        "striped-0h00m04.000s.jpg",
        "striped-0h00m05.000s.jpg",
        "striped-0h00m01.500s.jpg",
    ]
    assert sorted(folder.iterdir()) == sorted(paths)
    for path, time_s in zip(paths, (4.0, 5.0, 1.5), strict=True):
        found = cv2.imread(str(path))[..., ::-1].astype(int)
        assert found.shape == (224, 224, 3)
        assert np.abs(found - render_frame(scene, time_s)).mean() < 12


def test_the_picture_on_screen_at_each_time_of_a_span_is_saved(striped, tmp_path):
    # The second time asked for, 1.93 s, shows the frame that began at 1.75 s.
    paths = save_frames(striped[1], [Span(1.5, 1.95, 0.5, (1.5,))], tmp_path, fps=2.3)
    assert [path.name[-11:] for path in paths] == ["01.500s.jpg", "01.750s.jpg"]


def test_the_frame_after_a_span_is_not_saved(striped, tmp_path):
    # The second time asked for, 1.99 s, is served by the frame that begins a moment later, at 2 s.
    paths = save_frames(striped[1], [Span(1.5, 1.995, 0.5, (1.5,))], tmp_path, fps=1 / 0.49)
    assert [path.name for path in paths] == ["striped-0h00m01.500s.jpg"]


def test_saving_again_is_fine_but_another_picture_is_not_overwritten(striped, tmp_path):
    first = save_frames(striped[1], SPANS, tmp_path, fps=1)
    assert save_frames(striped[1], SPANS, tmp_path, fps=1) == first
    first[1].write_bytes(b"something of mine")
    with pytest.raises(ConfigError, match=r"0h00m05\.000s\.jpg exists and is another picture"):
        save_frames(striped[1], SPANS, tmp_path, fps=1)
    assert first[1].read_bytes() == b"something of mine"


def test_a_folder_that_cannot_be_made_is_refused_in_one_sentence(striped, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match="Cannot write"):
        save_frames(striped[1], SPANS, tmp_path / "file", fps=1)
