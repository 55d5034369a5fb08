"""The largest set of pairs in which nobody occurs twice. Knows graphs of two sides, nothing of boxes."""

from collections import deque

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

NOBODY = -1


def assign(left: Ints, right: Ints, weight: Floats, left_size: int, right_size: int) -> Ints:
    """A maximum matching: (left_size,) the partner of each left, or NOBODY.

    left, right: (e,) ends of the possible pairs, each pair once, in any order; weight: (e,) where there is a choice the heavier pair is preferred, without promise.
    The number of pairs is exactly the largest possible. No pairs, no partners.

    Whoever can pair with one only does so in some largest matching (Karp and Sipser, 1981): taking all such pairs at once, again and again, settles sparse
    graphs in a few rounds of numpy. What remains are knots, where all have a choice: there the heaviest pairs are taken, then augmenting paths make up for it.
    """
    partner_of_left = np.full(left_size, NOBODY, dtype=np.int64)
    order = np.argsort(-weight, kind="stable")
    left, right = left[order], right[order]
    left_taken, right_taken = np.zeros(left_size, dtype=np.bool_), np.zeros(right_size, dtype=np.bool_)
    while len(left):
        chosen = _forced(left, right)
        if not len(chosen):
            break
        partner_of_left[left[chosen]] = right[chosen]
        left_taken[left[chosen]] = True
        right_taken[right[chosen]] = True
        rest = ~(left_taken[left] | right_taken[right])
        left, right = left[rest], right[rest]
    if len(left):
        _untie(left, right, partner_of_left)
    return partner_of_left


def _forced(left: Ints, right: Ints) -> Ints:
    """Positions of pairs, heaviest first, one for each star of pairs in which an end has no other pair. The stars share no ends."""
    single_left = np.flatnonzero(np.bincount(left)[left] == 1)
    single_right = np.flatnonzero(np.bincount(right)[right] == 1)
    chosen: Ints = np.union1d(_first_of_each(single_left, right), _first_of_each(single_right, left))
    return chosen


def _first_of_each(positions: Ints, end: Ints) -> Ints:
    """Of positions (ascending) the first with each value of end."""
    if not len(positions):
        return positions
    values = end[positions]
    first = np.empty(int(values.max()) + 1, dtype=np.int64)
    first[values[::-1]] = positions[::-1]
    kept: Ints = positions[first[values] == positions]
    return kept


def _untie(left: Ints, right: Ints, partner_of_left: Ints) -> None:
    """Writes a maximum matching of the pairs, heaviest first, into partner_of_left, where none of their ends has a partner yet."""
    choices: dict[int, list[int]] = {}
    by_left: dict[int, int] = {}
    by_right: dict[int, int] = {}
    for one, other in zip(left.tolist(), right.tolist(), strict=True):
        choices.setdefault(one, []).append(other)
        if one not in by_left and other not in by_right:
            by_left[one], by_right[other] = other, one
    dead: set[int] = (
        set()
    )  # rights from which no free right can be reached: a search that failed never has to be made again
    for free in [one for one in choices if one not in by_left]:
        _augment(free, choices, by_left, by_right, dead)
    partner_of_left[list(by_left)] = list(by_left.values())


def _augment(
    free: int, choices: dict[int, list[int]], by_left: dict[int, int], by_right: dict[int, int], dead: set[int]
) -> None:
    """Finds a shortest alternating path from the unpaired left free to an unpaired right and swaps along it; if there is none, adds the rights seen to dead."""
    reached_from: dict[int, int] = {}
    queue = deque([free])
    while queue:
        one = queue.popleft()
        for other in choices[one]:
            if other in reached_from or other in dead:
                continue
            reached_from[other] = one
            if other in by_right:
                queue.append(by_right[other])
                continue
            end: int | None = other
            while end is not None:
                start = reached_from[end]
                previous = by_left.get(start)
                by_left[start], by_right[end] = end, start
                end = previous
            return
    dead.update(reached_from)
