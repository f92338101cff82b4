"""Nearest slices against plain searches and scipy's distances; Mann–Whitney by counting pairs."""

import numpy as np
import pytest
import torch
from any2all.errors import Any2allError
from any2all.scores.neighbours import compare_distances, nearest
from scipy.spatial.distance import cdist


def images(count, seed, shape=(3, 12, 10)):
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_complete_stacks_agree_with_scipy():
    query, bank = images(7, 0), images(20, 1)
    flipped = cdist(query.flip(-1).flatten(1), bank.flatten(1))
    both = np.minimum(cdist(query.flatten(1), bank.flatten(1)), flipped) / np.sqrt(360) / 2
    found = nearest(query, bank)
    assert found.rms_u.numpy() == pytest.approx(both.min(axis=1), rel=1e-5)
    assert found.index.tolist() == both.argmin(axis=1).tolist() and found.channels.tolist() == [3] * 7


def test_incomplete_training_slices_agree_with_a_search_one_by_one():
    query, bank = images(6, 0), images(15, 1)
    present = torch.rand(15, 3, generator=torch.Generator().manual_seed(2)) > 0.4
    present[:, 0] = True
    found = nearest(query, bank, present)
    for i, image in enumerate(query):
        distances = [
            min((((b - seen)[has] ** 2).mean().sqrt() / 2) for seen in (image, image.flip(-1)))
            for b, has in zip(bank, present)
        ]
        at = int(np.argmin(distances))
        assert float(found.rms_u[i]) == pytest.approx(float(distances[at]), rel=1e-4)
        assert int(found.index[i]) == at and int(found.channels[i]) == int(present[at].sum())


def test_a_copy_is_found_at_distance_zero_even_mirrored_or_in_parts():
    bank = images(9, 1, (6, 64, 64))
    query = torch.stack([bank[4], bank[7].flip(-1), bank[2] + 0.1])
    query[0, 1] = float("nan")  # a held-out slice that lacks a modality
    has = torch.ones(3, 6, dtype=torch.bool)
    has[0, 1] = False
    found = nearest(query, bank, query_present=has)
    assert found.index.tolist() == [4, 7, 2] and found.channels.tolist() == [5, 6, 6]
    assert found.rms_u[:2].tolist() == [0.0, 0.0] and float(found.rms_u[2]) == pytest.approx(0.05, rel=1e-4)


def test_nothing_in_common_is_infinitely_far():
    query, bank = images(2, 0), images(3, 1)
    only_first, only_last = (torch.zeros(n, 3, dtype=torch.bool) for n in (3, 2))
    only_first[:, 0] = True
    only_last[0, 2] = only_last[1, 0] = True
    found = nearest(query, bank, only_first, only_last)
    assert found.rms_u.isinf().tolist() == [True, False] and found.channels.tolist() == [0, 1]
    with pytest.raises(Any2allError, match="bank"):
        nearest(query, bank[:0])
    with pytest.raises(Any2allError, match="bank"):
        nearest(query, bank[:, :2])


def test_distances_are_compared_as_pairs_are_counted():
    rng = np.random.default_rng(0)
    draws, held_out = rng.normal(0.10, 0.02, 40).round(2), rng.normal(0.11, 0.02, 25).round(2)
    found = compare_distances(draws, held_out)
    nearer = (draws[:, None] < held_out).mean() + 0.5 * (draws[:, None] == held_out).mean()
    assert found.nearer == pytest.approx(nearer) and (found.n, found.n_held_out) == (40, 25)
    assert found.median == np.median(draws) and found.tenth_held_out == pytest.approx(np.quantile(held_out, 0.1))


def test_memories_are_told_from_new_images():
    rng = np.random.default_rng(0)
    held_out = rng.normal(0.10, 0.01, 60)
    memories = compare_distances(torch.from_numpy(rng.normal(0.02, 0.01, 60)), held_out)
    assert memories.nearer > 0.99 and memories.p_value < 1e-6
    farther = compare_distances(rng.normal(0.12, 0.01, 60), held_out)
    assert farther.nearer < 0.2 and farther.p_value > 0.99
    alike = compare_distances([0.1] * 5, [0.1] * 4)
    assert alike.nearer == 0.5 and alike.p_value > 0.4
    for wrong in ([], [float("inf")]):
        with pytest.raises(Any2allError, match="draws"):
            compare_distances(wrong, held_out)
