"""The test behind "slower" and "more": Hodges and Lehmann's aligned rank test of two samples in blocks.

Values are per run, never per life: the lives of a run share its machine and its load, and taking each for
independent would find a difference in anything. Within a block (runs that may be compared, or one pair) the
values are aligned at the block's median, all are ranked together, and the rank sum of the later sample is held
against its permutation distribution within the blocks. With one block this is the test of Mann, Whitney and
Wilcoxon, with blocks of two it is close to Wilcoxon's signed rank test.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist, median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Block = tuple[Sequence[float], Sequence[float]]

EXACT = 100
"""Values up to which all permutations are counted; above, the normal distribution is near enough."""

_MOST_PAIRS = 250_000


@dataclass(frozen=True)
class Shift:
    """How a later sample differs from an earlier one.

    Attributes:
        before: values of the earlier sample that stand in a block with later ones.
        after: values of the later sample that do.
        blocks: number of blocks.
        estimate: Hodges and Lehmann's: the median of all differences later minus earlier, blocks aligned.
        delta: Cliff's delta: the share of pairs in which the later is larger, minus that in which it is smaller.
        p: two-sided.
        least_p: the smallest p that samples of these sizes could give.
    """

    before: int
    after: int
    blocks: int
    estimate: float
    delta: float
    p: float
    least_p: float


def compare(blocks: Iterable[Block]) -> Shift | None:
    """Compare two samples; null when no block has values of both."""
    usable = [(list(before), list(after)) for before, after in blocks if before and after]
    if not usable:
        return None
    ranks, later = _aligned_ranks(usable)
    arrangements = math.prod(math.comb(len(b) + len(a), len(a)) for b, a in usable)
    within = [(y > x) - (y < x) for before, after in usable for x in _thin(before) for y in _thin(after)]
    return Shift(
        before=sum(len(b) for b, _ in usable),
        after=sum(len(a) for _, a in usable),
        blocks=len(usable),
        estimate=_typical_difference(usable),
        delta=sum(within) / len(within),
        p=_exact(ranks, later) if sum(map(len, ranks)) <= EXACT else _normal(ranks, later),
        least_p=min(1.0, 2 / arrangements),
    )


def _thin(values: list[float]) -> list[float]:
    """Return the values, or as many evenly spread ones as pairs of them can be formed."""
    most = int(math.sqrt(_MOST_PAIRS))
    if len(values) <= most:
        return values
    ordered = sorted(values)
    return [ordered[at * (len(ordered) - 1) // (most - 1)] for at in range(most)]


def _typical_difference(blocks: list[tuple[list[float], list[float]]]) -> float:
    early: list[float] = []
    late: list[float] = []
    for before, after in blocks:
        middle = median(before + after)
        early += [x - middle for x in before]
        late += [y - middle for y in after]
    return median(y - x for x in _thin(early) for y in _thin(late))


def _aligned_ranks(blocks: list[tuple[list[float], list[float]]]) -> tuple[list[list[int]], list[int]]:
    """Return per block twice the midranks, the earlier values first, and how many are later ones."""
    aligned = []
    for number, (before, after) in enumerate(blocks):
        middle = median(before + after)
        # Rounding would break ties between equal differences of floats.
        aligned += [(round(value - middle, 9), number) for value in before + after]
    order = sorted(range(len(aligned)), key=lambda at: aligned[at][0])
    ranks = [0] * len(aligned)
    start = 0
    while start < len(order):
        end = start
        while end + 1 < len(order) and aligned[order[end + 1]][0] == aligned[order[start]][0]:
            end += 1
        for at in order[start : end + 1]:
            ranks[at] = start + end + 2  # twice the mean of the ranks start + 1 to end + 1
        start = end + 1
    out: list[list[int]] = [[] for _ in blocks]
    for (_, number), rank in zip(aligned, ranks, strict=True):
        out[number].append(rank)
    return out, [len(after) for _, after in blocks]


def _moments(ranks: list[list[int]], later: list[int]) -> tuple[float, float, float]:
    """Return the rank sum of the later values, and its mean and variance when which are later is chance."""
    found = mean = variance = 0.0
    for own, m in zip(ranks, later, strict=True):
        size = len(own)
        middle = sum(own) / size
        found += sum(own[size - m :])
        mean += m * middle
        variance += m * (size - m) / (size * (size - 1)) * sum((rank - middle) ** 2 for rank in own)
    return found, mean, variance


def _normal(ranks: list[list[int]], later: list[int]) -> float:
    found, mean, variance = _moments(ranks, later)
    if variance == 0:
        return 1.0
    away = max(0.0, abs(found - mean) - 1)  # ranks are doubled: half a step each way is 1
    return min(1.0, 2 * NormalDist().cdf(-away / math.sqrt(variance)))


def _exact(ranks: list[list[int]], later: list[int]) -> float:
    found, mean, _ = _moments(ranks, later)
    arrangements = math.prod(math.comb(len(own), m) for own, m in zip(ranks, later, strict=True))
    width = arrangements.bit_length() // 8 + 1  # bytes that hold any count
    # The counts of all rank sums, as one large integer with a field per sum: a product merges two blocks.
    counts, least = 1, 0
    for own, m in zip(ranks, later, strict=True):
        lowest = min(own)
        counts *= _subset_sums([rank - lowest for rank in own], m, 8 * width)
        least += m * lowest
    fields = counts.to_bytes((counts.bit_length() + 7) // 8 + width, "little")
    away = abs(found - mean) - 1e-9
    extreme = 0
    for total in range(len(fields) // width):
        if abs(total + least - mean) >= away:
            extreme += int.from_bytes(fields[total * width : (total + 1) * width], "little")
    return extreme / arrangements


def _subset_sums(values: list[int], size: int, field: int) -> int:
    """Return how many subsets of a size have each sum, as an integer with ``field`` bits per sum."""
    by_size = [1] + [0] * size
    for value in values:
        for taken in range(size, 0, -1):
            by_size[taken] += by_size[taken - 1] << (value * field)
    return by_size[size]


def adjusted(tests: Sequence[tuple[float, float]], alpha: float) -> list[float | None]:
    """Return the p-values adjusted for their number: Holm's step-down, with Tarone's count of tests.

    Args:
        tests: p and the least p that it could have been, one pair per test.
        alpha: chance of even one false alarm that is accepted.

    Returns:
        One per test; null where the samples are too small to tell anything.
    """
    count = 1
    while sum(least <= alpha / count for _, least in tests) > count:
        count += 1
    able = sorted((p, at) for at, (p, least) in enumerate(tests) if least <= alpha / count)
    out: list[float | None] = [None] * len(tests)
    highest = 0.0
    for step, (p, at) in enumerate(able):
        highest = max(highest, min(1.0, (len(able) - step) * p))
        out[at] = highest
    return out
