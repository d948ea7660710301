"""Going on in the middle of a video: frames, pivots, blocks and cells as if nothing had stopped."""

import numpy as np
import pytest
from session_support import GOLDEN, LONG_VIDEO, MODEL, VIDEO, opened, settings

from retake_edge.compress.dpselect import PivotStream
from retake_edge.engine.chunks import StreamState, frame_blocks
from retake_edge.errors import NativeError
from retake_edge.llama.context import Context
from retake_edge.llama.model import Model
from retake_edge.video.read import sample_frames
from retake_edge.vision import reader
from retake_edge.vision.encoder import VisionFeatures


def all_frames(path, **options):
    batches = list(sample_frames(path, **options))
    if not batches:
        return np.zeros((0, 1, 1, 3), np.uint8), np.zeros(0)
    return (
        np.concatenate([batch.frames for batch in batches]),
        np.concatenate([batch.times_s for batch in batches]),
    )


@pytest.mark.parametrize("name", ["h264.mp4", "vfr.mkv", "long.mkv", "start_5s.ts", "h264.avi"])
def test_sampling_goes_on_after_any_frame(name):
    path = VIDEO.with_name(name)
    rate = 0.2 if name == "long.mkv" else 4.0
    frames, times_s = all_frames(path, fps=rate)
    for n_done in (1, len(times_s) // 2, len(times_s) - 1, len(times_s)):
        rest, rest_s = all_frames(path, fps=rate, after_s=float(times_s[n_done - 1]))
        assert rest_s.tolist() == times_s[n_done:].tolist()
        assert np.array_equal(rest, frames[n_done:]) or not len(rest_s)


def features_of(n_frames, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n_frames, 6, 16)).astype(np.float32)
    times = np.arange(n_frames, dtype=np.float64)
    return VisionFeatures(rows, times, times, 2, 3)


@pytest.mark.parametrize("per_patch", [True, False])
@pytest.mark.parametrize("steps", [1, 3, 4])
def test_blocks_go_on_after_any_of_them(per_patch, steps):
    video = features_of(11)
    options = {"per_patch": per_patch, "n_embd": 12}
    whole = list(frame_blocks(iter([video[:5], video[5:]]), steps, **options))
    state = None
    for i, block in enumerate(whole):
        state = StreamState.after(block, 12, state)
        rest = video[state.n_frames :]
        parts = iter([rest] if len(rest.times_s) else [])
        blocks = list(frame_blocks(parts, steps, after=state, **options))
        assert [b.first_frame for b in blocks] == [b.first_frame for b in whole[i + 1 :]]
        for made, expected in zip(blocks, whole[i + 1 :], strict=True):
            assert np.array_equal(made.pivots, expected.pivots)
            assert np.array_equal(made.distances, expected.distances)


def test_a_resumed_stream_decides_the_last_frame_once_more():
    video = features_of(5).embeddings
    stream = PivotStream()
    first = stream.push(video[:4])
    last = PivotStream.resumed(video[3], np.ones((1, 6), np.float32), per_patch=True)
    assert len(first[0]) == 3
    assert len(last.push(video[4:])[0]) == 1


@pytest.fixture(scope="module")
def model():
    with Model(GOLDEN / "tiny-f32.gguf") as loaded:
        yield loaded


def filled(model, n_ctx=64, **options):
    context = Context(model, n_ctx=n_ctx, n_seq_max=2, n_threads=1, **options)
    context.decode_tokens(list(range(20, 40)), 0)
    return context


def test_cells_saved_in_parts_make_the_same_cache(model):
    with filled(model) as context, Context(model, n_ctx=64, n_seq_max=2, n_threads=1) as other:
        for first, last in ((0, 7), (7, 7), (7, 19), (19, -1)):
            other.load_cells(context.save_cells(first, last))
        assert other.position_max() == context.position_max() == 19
        for one in (context, other):
            one.decode_tokens([50, 51], 20)
        assert np.array_equal(context.logits(), other.logits())


def test_saving_cells_changes_nothing(model):
    with filled(model) as context, filled(model) as untouched:
        context.save_cells(3, 9)
        for one in (context, untouched):
            one.decode_tokens([50, 51], 20)
        assert np.array_equal(context.logits(), untouched.logits())


@pytest.mark.parametrize(
    "make",
    [
        lambda blob: blob[:-1],
        lambda blob: blob[:40],
        lambda blob: np.concatenate([blob, blob[:4]]),
    ],
)
def test_cells_that_are_cut_or_too_long_are_refused(model, make):
    with filled(model) as context:
        blob = make(context.save_cells(0))
    with (
        Context(model, n_ctx=64, n_seq_max=2) as other,
        pytest.raises(NativeError, match="does not load"),
    ):
        other.load_cells(blob)


def test_cells_of_another_type_or_too_many_are_refused(model):
    with filled(model) as context:
        blob = context.save_cells(0)
    with (
        Context(model, n_ctx=64, n_seq_max=2, type_k="q8_0") as other,
        pytest.raises(NativeError, match="does not load"),
    ):
        other.load_cells(blob)
    with Context(model, n_ctx=256, n_seq_max=2) as small:
        for _ in range(small.n_ctx // 20):
            small.load_cells(blob)
        with pytest.raises(NativeError, match="does not load"):
            small.load_cells(blob)


def test_thumbnails_are_few_however_long_the_video(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "MAX_THUMBNAILS", 7)
    config = settings(fps=0.5)
    with opened(tmp_path, config, video=LONG_VIDEO, model=MODEL, use_cache=False) as session:
        times_s = [time_s for time_s, _ in session.thumbnails]
    assert len(times_s) == 7 and session.video.n_grid_frames == 50
    assert np.array_equal(np.diff(times_s), np.full(6, 32.0))
    assert all(jpeg.startswith(b"\xff\xd8") for _, jpeg in session.thumbnails)
