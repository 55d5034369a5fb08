import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from model.metrics.assignment import NOBODY, assign


def check(left, right, weight, left_size, right_size):
    """Asserts that the matching is one, uses only possible pairs and is as large as scipy's."""
    partner = assign(left, right, weight, left_size, right_size)
    matched = np.flatnonzero(partner != NOBODY)
    possible = set(zip(left.tolist(), right.tolist(), strict=True))
    assert partner.shape == (left_size,)
    assert len(set(partner[matched].tolist())) == len(matched)
    assert all((one, int(partner[one])) in possible for one in matched.tolist())
    graph = coo_array((np.ones(len(left)), (left, right)), shape=(left_size, right_size)).tocsr()
    assert len(matched) == (maximum_bipartite_matching(graph, perm_type="column") >= 0).sum()


@settings(max_examples=300, deadline=None)
@given(
    st.integers(1, 12),
    st.integers(1, 12),
    st.sets(st.tuples(st.integers(0, 11), st.integers(0, 11))),
    st.integers(0, 9),
)
def test_small_graphs(left_size, right_size, pairs, seed):
    pairs = [(one, other) for one, other in pairs if one < left_size and other < right_size]
    left, right = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    check(left, right, np.random.default_rng(seed).random(len(left)), left_size, right_size)


@pytest.mark.parametrize("pairs_each", [0.5, 1, 2, 3, 4, 8])
def test_large_graphs(pairs_each):
    """Around two to four pairs each is where knots remain and greedy choices go wrong."""
    for seed in range(15):
        random = np.random.default_rng(seed)
        left_size, right_size = random.integers(50, 400, 2).tolist()
        cells = np.unique(random.integers(0, left_size * right_size, int(pairs_each * left_size)))
        order = random.permutation(len(cells))
        check(cells[order] // right_size, cells[order] % right_size, random.random(len(cells)), left_size, right_size)


@pytest.mark.parametrize("length", [2, 3, 1000, 1001])
def test_chains_and_rings(length):
    chain = np.arange(length)
    left, right = np.concatenate([chain, chain[1:]]), np.concatenate([chain, chain[:-1]])
    check(left, right, np.linspace(0, 1, len(left)), length, length)
    ring_left, ring_right = np.append(left, 0), np.append(right, length - 1)
    if length > 2:
        check(ring_left, ring_right, np.linspace(1, 0, len(ring_left)), length, length)


def test_everybody_with_everybody():
    left, right = (side.ravel() for side in np.mgrid[:40, :60])
    check(left, right, np.zeros(len(left)), 40, 60)


def test_prefers_the_heavier_pair_where_it_costs_nothing():
    left, right = np.array([0, 1, 2]), np.array([0, 0, 0])
    assert assign(left, right, np.array([0.5, 0.9, 0.7]), 3, 1).tolist() == [NOBODY, 0, NOBODY]


def test_greedy_would_lose_one():
    """The heaviest pair stands in the way of two others."""
    assert assign(np.array([0, 0, 1]), np.array([0, 1, 0]), np.array([0.9, 0.6, 0.6]), 2, 2).tolist() == [1, 0]


def test_empty():
    nothing = np.empty(0, dtype=np.int64)
    assert assign(nothing, nothing, np.empty(0), 0, 0).shape == (0,)
    assert assign(nothing, nothing, np.empty(0), 2, 3).tolist() == [NOBODY, NOBODY]
