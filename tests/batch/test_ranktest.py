"""The rank test against counting by hand, and against chance: it finds what is there and raises no false alarm."""

from __future__ import annotations

import itertools
import math
import random
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apftrace.batch import ranktest
from apftrace.batch.ranktest import adjusted, compare

VALUES = st.lists(st.integers(0, 6).map(float), min_size=1, max_size=4)
BLOCKS = st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=2)


def by_hand(blocks) -> float:
    """Return p by going through every way of calling values earlier and later within their blocks."""
    aligned = [[x - median(b + a) for x in b + a] for b, a in blocks]
    every = sorted(x for block in aligned for x in block)
    midrank = {x: (every.index(x) + 1 + every.index(x) + every.count(x)) / 2 for x in every}
    ranks = [[midrank[x] for x in block] for block in aligned]
    found = sum(sum(own[len(b) :]) for own, (b, _) in zip(ranks, blocks, strict=True))
    ways = [
        [sum(chosen) for chosen in itertools.combinations(own, len(a))]
        for own, (_, a) in zip(ranks, blocks, strict=True)
    ]
    sums = [sum(one) for one in itertools.product(*ways)]
    mean = sum(sums) / len(sums)
    return sum(abs(one - mean) >= abs(found - mean) - 1e-9 for one in sums) / len(sums)


@given(BLOCKS)
@settings(deadline=None)
def test_small_samples_are_counted_exactly(blocks):
    assert compare(blocks).p == pytest.approx(by_hand(blocks))


def test_one_block_is_the_test_of_mann_and_whitney():
    # Their table: 4 and 5 values, no overlap at all: 2 of 126 arrangements.
    found = compare([([1, 2, 3, 4], [5, 6, 7, 8, 9])])
    assert found.p == pytest.approx(2 / 126)
    assert found.least_p == pytest.approx(2 / 126)
    assert (found.delta, found.estimate) == (1, median(y - x for x in (1, 2, 3, 4) for y in (5, 6, 7, 8, 9)))


def test_the_normal_distribution_is_near_and_on_the_safe_side():
    source = random.Random(1)
    for _ in range(60):
        before = [source.gauss(0, 1) for _ in range(8)]
        after = [source.gauss(source.choice((0, 1, 2)), 1) for _ in range(8)]
        ranks, later = ranktest._aligned_ranks([(before, after)])
        exact, normal = ranktest._exact(ranks, later), ranktest._normal(ranks, later)
        assert normal == pytest.approx(exact, abs=0.02)
        assert exact > 0.01 or normal > 0.6 * exact


def test_pairs_see_through_what_differs_between_them():
    # Runs of very different jobs: as two heaps they overlap, pair by pair each is 20 % slower.
    source = random.Random(2)
    jobs = [source.gauss(0, 2) for _ in range(12)]
    before = [job + source.gauss(0, 0.02) for job in jobs]
    after = [job + math.log(1.2) + source.gauss(0, 0.02) for job in jobs]
    assert compare([(before, after)]).p > 0.3
    paired = compare([([x], [y]) for x, y in zip(before, after, strict=True)])
    assert paired.p < 0.002
    assert math.exp(paired.estimate) == pytest.approx(1.2, abs=0.02)


@pytest.mark.parametrize("blocks", [1, 4, 30])
def test_chance_is_seldom_taken_for_a_change(blocks):
    source = random.Random(blocks)
    alarms = 0
    for _ in range(400):
        sizes = [(source.randint(1, 6) if blocks > 1 else 20) for _ in range(2 * blocks)]
        offsets = [source.gauss(0, 5) for _ in range(blocks)]
        made = [
            (
                [offset + source.gauss(0, 1) for _ in range(sizes[2 * n])],
                [offset + source.gauss(0, 1) for _ in range(sizes[2 * n + 1])],
            )
            for n, offset in enumerate(offsets)
        ]
        alarms += compare(made).p <= 0.05
    assert alarms / 400 <= 0.08


def test_equal_values_are_no_difference():
    assert compare([([3.0] * 30, [3.0] * 30)]).p == 1
    assert compare([([3.0], [3.0])] * 30).p == 1


def test_nothing_to_compare():
    assert compare([]) is None
    assert compare([([1.0], []), ([], [2.0])]) is None


def test_many_values_are_thinned_and_not_forgotten():
    before, after = [float(x) for x in range(3000)], [float(x + 300) for x in range(3000)]
    found = compare([(before, after)])
    assert found.estimate == pytest.approx(300, rel=0.02)
    assert (found.before, found.after) == (3000, 3000)


def test_holm():
    assert adjusted([(0.01, 0), (0.04, 0), (0.03, 0)], 0.05) == pytest.approx([0.03, 0.06, 0.06])


def test_tests_that_could_not_tell_do_not_count():
    # Tarone: ten samples of two would cost the one large sample its finding.
    tests = [(0.02, 1e-6)] + [(0.5, 0.33)] * 10
    assert adjusted(tests, 0.05) == [0.02] + [None] * 10


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)).map(lambda t: (max(t), min(t))), max_size=12))
def test_adjusting_never_makes_anything_surer(tests):
    for (p, least), after in zip(tests, adjusted(tests, 0.05), strict=True):
        assert after is None or p <= after <= 1
        assert after is not None or least > 0.05 / max(1, len(tests))
