"""Shares and intervals of the benchmarks."""

import math

import pytest

from retake_edge.bench.stats import Share, paired_difference, paired_ratio, share


def test_the_interval_of_half_of_ten_is_wilsons():
    low, high = Share(5, 10).interval()
    assert (low, high) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_all_right_does_not_mean_certain():
    low, high = Share(20, 20).interval()
    assert low == pytest.approx(0.8389, abs=1e-4) and high == 1.0


def test_nothing_asked_leaves_everything_possible():
    assert Share(0, 0).interval() == (0.0, 1.0)
    assert math.isnan(Share(0, 0).value)


def test_shares_count_the_right_ones():
    assert share([True, False, True]) == Share(2, 3)


def test_the_same_answers_differ_by_exactly_nothing():
    assert paired_difference([True, False] * 8, [True, False] * 8) == (0.0, 0.0, 0.0)


def test_pairing_makes_a_difference_surer_than_the_shares_are():
    ours, theirs = [True] * 50 + [False] * 50, [True] * 40 + [False] * 60
    mean, low, high = paired_difference(ours, theirs)
    assert mean == pytest.approx(0.1)
    assert 0 < low < 0.1 < high < 0.2
    shares_overlap = share(theirs).interval()[1] > share(ours).interval()[0]
    assert shares_overlap


def test_answers_to_different_questions_cannot_be_paired():
    with pytest.raises(ValueError, match="longer"):
        paired_difference([True], [True, False])


def test_a_ratio_that_every_pair_has_is_certain_and_one_pair_tells_nothing_of_others():
    assert paired_ratio([1.0, 2.0, 4.0], [2.0, 4.0, 8.0]) == pytest.approx((0.5, 0.5, 0.5))
    assert paired_ratio([3.0], [2.0]) == pytest.approx((1.5, 0.0, math.inf))


def test_ratios_up_and_down_by_the_same_factor_are_none_and_their_spread_shows():
    mean, low, high = paired_ratio([2.0, 1.0], [1.0, 2.0])
    assert mean == pytest.approx(1.0)
    half = 1.959963984540054 * math.log(2)  # deviation sqrt(2) ln 2 of two pairs
    assert (low, high) == pytest.approx((math.exp(-half), math.exp(half)))


@pytest.mark.parametrize("pairs", [([], []), ([1.0], [1.0, 2.0])])
def test_what_cannot_be_paired_has_no_ratio(pairs):
    with pytest.raises(ValueError, match=r"longer|no pair"):
        paired_ratio(*pairs)
