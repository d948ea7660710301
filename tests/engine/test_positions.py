"""Position rules of each model family, and what re-forging does to them."""

from __future__ import annotations

import numpy as np
import pytest

from retake_edge.engine.positions import (
    TEXT,
    frame_steps,
    frame_steps_by_time,
    interleaved_span,
    linear_span,
    mrope_span,
    next_position,
    reforge,
    reforge_per_layer,
    require_separate_times,
    separated,
    text_positions,
    timed_span,
)
from retake_edge.errors import ConfigError


def test_text_stands_at_the_same_position_on_all_axes() -> None:
    assert text_positions(3, 7).tolist() == [[7, 8, 9]] * 3 + [[0, 0, 0]]
    assert next_position(text_positions(3, 7)) == 10
    assert next_position(text_positions(0, 7)) == 0


def test_rows_and_columns_stay_and_time_steps_with_the_frame() -> None:
    span = mrope_span(frame_steps(2), 2, 3, base=10)
    assert span.ids.tolist() == [
        [10] * 6 + [11] * 6,
        [10, 10, 10, 11, 11, 11] * 2,
        [10, 11, 12] * 4,
        [0] * 12,
    ]
    assert span.frame.tolist() == [0] * 6 + [1] * 6
    assert span.next_position == 13, "text follows the widest axis"
    assert not span.is_text.any()


def test_a_long_video_is_followed_by_text_at_its_last_time_plus_one() -> None:
    assert mrope_span(frame_steps(50), 2, 3, base=10).next_position == 60


def test_time_scaled_steps_are_cut_to_integers_as_the_processor_does() -> None:
    seconds = np.array([5.0, 5.4, 6.0, 7.9])
    assert frame_steps_by_time(seconds, 2.0).tolist() == [0, 0, 2, 5]


def test_frames_shown_a_little_off_their_sampled_time_step_as_if_on_it() -> None:
    ntsc = np.array([0.0, 0.967633, 2.002, 2.969633])
    assert frame_steps_by_time(ntsc, 2.0).tolist() == [0, 1, 4, 5]
    assert frame_steps_by_time(ntsc, 2.0, step_s=0.5).tolist() == [0, 2, 4, 6]


def test_a_still_picture_is_stepped_over_by_its_clock() -> None:
    seconds = np.array([0.0, 1.0, 9.5])
    assert frame_steps_by_time(seconds, 2.0, step_s=0.5).tolist() == [0, 2, 19]


@pytest.mark.parametrize("step_s", [0.4, 0.35, 1 / 3])
def test_steps_are_the_product_of_grid_frame_and_interval(step_s: float) -> None:
    grid = np.arange(500, dtype=np.float64)
    expected = (grid.astype(np.float32) * np.float32(2.0 * 2 * step_s)).astype(np.int32)
    assert frame_steps_by_time(grid * 2 * step_s, 2.0, step_s).tolist() == expected.tolist()


def test_the_same_clock_time_has_the_same_position_at_any_sampling_rate() -> None:
    sparse = timed_span(np.arange(0, 8, 2.0), 2, 2, base=5)
    dense = timed_span(np.arange(0, 8, 0.5), 2, 2, base=5)
    for i in range(4):
        np.testing.assert_array_equal(
            sparse.ids[:, sparse.frame == i], dense.ids[:, dense.frame == 4 * i]
        )


def test_clock_text_stands_just_before_its_frame_on_all_axes() -> None:
    span = timed_span(np.array([3.0, 4.0, 4.5]), 1, 2, base=20)
    assert span.is_text.tolist() == [True, False, False] * 3
    assert span.ids[0].tolist() == [20, 21, 21, 24, 25, 25, 26, 27, 27]
    assert span.ids[1].tolist() == [20, 20, 20, 24, 20, 20, 26, 20, 20]
    assert span.ids[2].tolist() == [20, 20, 21, 24, 20, 21, 26, 20, 21]
    assert span.frame.tolist() == [TEXT, 0, 0, TEXT, 1, 1, TEXT, 2, 2]
    assert span.next_position == 28


def test_a_later_part_of_a_video_is_laid_out_as_within_the_whole() -> None:
    seconds = np.arange(9, dtype=np.float64) * 0.75
    whole = timed_span(seconds, 2, 2, base=8, positions_per_second=4)
    part = timed_span(seconds[5:], 2, 2, base=8, first_s=seconds[0], positions_per_second=4)
    np.testing.assert_array_equal(part.ids, whole.ids[:, 5 * 5 :])
    assert part.next_position == whole.next_position


def test_text_between_frames_moves_all_axes_of_what_follows() -> None:
    span = interleaved_span([2, 1], rows=2, cols=3, base=4)
    assert span.ids[0].tolist() == [4, 5] + [6] * 6 + [9] + [10] * 6
    assert span.ids[1].tolist() == [4, 5, 6, 6, 6, 7, 7, 7, 9, 10, 10, 10, 11, 11, 11]
    assert span.ids[2].tolist() == [4, 5, *[6, 7, 8] * 2, 9, *[10, 11, 12] * 2]
    assert span.next_position == 13


def test_plain_positions_count_every_token() -> None:
    span = linear_span([1, 0], n_tokens=2, base=3)
    assert span.ids.tolist() == [3, 4, 5, 6, 7]
    assert span.frame.tolist() == [TEXT, 0, 0, 1, 1]
    assert span.next_position == 8


def test_times_that_fall_and_empty_grids_are_refused() -> None:
    with pytest.raises(ConfigError, match="backwards"):
        timed_span(np.array([1.0, 0.5]), 2, 2, base=0, first_s=0)
    with pytest.raises(ConfigError, match="grid"):
        mrope_span(frame_steps(1), 0, 2, base=0)


@pytest.mark.parametrize("seed", range(40))
def test_reforged_times_keep_their_order_and_end_before_the_next_chunk(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 200))
    t = np.sort(rng.integers(50, 50 + n, n)).astype(np.int32)
    n_keep = int(rng.integers(1, n + 1))
    moved, following = reforge(t, n_keep)
    assert moved[0] == t[0] and (np.diff(moved) >= 0).all()
    assert (moved <= t).all() and following == moved.max() + 1
    exact = t[0] + np.floor((t - t[0]) * (n_keep / n) + 1e-9)
    np.testing.assert_array_equal(moved, exact)


def test_keeping_all_moves_nothing() -> None:
    t = np.array([3, 3, 4, 9], np.int32)
    for n_keep in (4, 9):
        moved, following = reforge(t, n_keep)
        assert moved.tolist() == t.tolist() and following == 10


def test_the_per_layer_rule_starts_at_the_first_kept_token_and_rounds_in_float32() -> None:
    kept = np.array([12, 14, 17], np.int32)
    assert reforge_per_layer(kept, 6).tolist() == [12, 13, 14]
    # The exact product of 22 * 26 / 44 is 13; in float32 it falls below.
    kept = np.full(26, 22, np.int32)
    kept[0] = 0
    assert reforge_per_layer(kept, 44)[-1] == 12
    assert reforge(np.array([0] * 22 + [22] * 22, np.int32), 26)[0][-1] == 13


# --- no two grid frames at one time position ----------------------------------------------------


@pytest.mark.parametrize(("kind", "rate"), [("mrope-time", 2.0), ("mrope-clock", 4.0)])
def test_more_grid_frames_a_second_than_positions_are_refused_with_the_rate_to_take(
    kind: str, rate: float
) -> None:
    most = 2 * rate
    for fps in (0.1, 1, most):
        require_separate_times(kind, rate, 1 / fps, 2)
    with pytest.raises(
        ConfigError, match=rf"At {most + 1:g} frames .* at most {most:g} with --fps"
    ):
        require_separate_times(kind, rate, 1 / (most + 1), 2)
    require_separate_times("mrope", rate, 1 / 60, 2)
    require_separate_times("timestamps", rate, 1 / 60, 2)


@pytest.mark.parametrize("seed", range(20))
def test_separated_steps_rise_move_up_no_more_than_needed_and_leave_even_ones_alone(
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    steps = np.cumsum(rng.integers(0, 4, 30)).astype(np.int32)
    expected: list[int] = []
    for step in steps.tolist():
        expected.append(max(step, expected[-1] + 1 if expected else step))
    assert separated(steps).tolist() == expected
    parts = [separated(steps[:11])]
    parts.append(separated(steps[11:], int(parts[0][-1])))
    assert np.concatenate(parts).tolist() == expected
    even = np.arange(0, 60, 2, dtype=np.int32)
    assert separated(even).tolist() == even.tolist() and not len(separated(even[:0], 3))


def test_up_to_four_frames_a_second_no_step_is_moved() -> None:
    for fps in (0.5, 1.0, 2.0, 3.0, 3.7, 4.0):
        seconds = np.arange(0, 400, 2) / fps
        steps = frame_steps_by_time(seconds, 2.0, 1 / fps)
        assert separated(steps).tolist() == steps.tolist()
