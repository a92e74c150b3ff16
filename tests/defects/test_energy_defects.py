"""The defects that show in energies: they are what they say, and the message names them."""

from __future__ import annotations

import pytest
import torch

from rotcheck.defects import energy
from rotcheck.defects.energy import DEFECTS, POSITIONS, ROWS, TEXTS, WIDTH
from rotcheck.outcome import Outcome
from rotcheck.registry import find

BY_NAME = {defect.name: defect for defect in DEFECTS}
SEEDS = (0, 1, 2)


def verdict(name, part, seed=0):
    return find("leading_energy").run(getattr(BY_NAME[name], part)(seed))


@pytest.mark.parametrize(
    ("name", "matched"),
    [
        ("values_in_the_key_basis", "the supplied basis, which is not the eigenbasis"),
        ("values_in_the_key_basis_behind_a_quantiser", "the basis of keys"),
        ("transposed_behind_a_quantiser", "the transposed basis"),
        ("ascending_behind_a_quantiser", "the basis in ascending order"),
    ],
)
@pytest.mark.parametrize("seed", SEEDS)
def test_each_fails_by_name_and_its_twin_passes(name, matched, seed):
    found = verdict(name, "plant", seed)
    assert (found.outcome, found.matched) == (Outcome.FAILED, matched), str(found)
    assert verdict(name, "twin", seed).outcome is Outcome.PASSED


@pytest.mark.parametrize("seed", SEEDS)
def test_the_basis_before_position_matches_nothing_that_has_a_name_but_chance(seed):
    """Each position has a basis of its own, so no one matrix fits: what is left is near chance."""
    found = verdict("basis_before_position", "plant", seed)
    assert found.outcome is Outcome.FAILED
    assert found.matched in ("", "a random basis")
    assert "before or behind the position embedding" in found.hint
    assert verdict("basis_before_position", "twin", seed).outcome is Outcome.PASSED


def test_the_basis_before_position_is_seen_by_no_other_check():
    """The code is as declared and the basis is that of the covariance: only the rows have moved on."""
    subject = BY_NAME["basis_before_position"].plant(0)
    for name in ("side", "energy_order", "round_trip", "precision_scaling", "orthogonality", "isometry", "determinism"):
        assert find(name).run(subject).outcome is Outcome.PASSED
    facts = dict(verdict("basis_before_position", "plant").facts)
    leading = next(value for key, value in facts.items() if key.startswith("energy in the first "))
    assert leading < facts["predicted for x @ basis"] - 0.3
    assert facts["energy in the first coordinate"] < facts["its floor 1 / d_eff"]


def test_positions_rotate_pairs_of_coordinates():
    rows = torch.randn(TEXTS, 9, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    turned = energy._positioned(rows, torch.arange(9))
    torch.testing.assert_close(turned.norm(dim=-1), rows.norm(dim=-1))
    torch.testing.assert_close(turned[:, 0], rows[:, 0])
    half = WIDTH // 2
    for i in (0, 3, half - 1):
        angle = 7 * 10_000.0 ** torch.tensor(-i / half, dtype=torch.float64)
        expected = rows[:, 7, i] * angle.cos() - rows[:, 7, i + half] * angle.sin()
        torch.testing.assert_close(turned[:, 7, i], expected)


def test_scores_between_positions_depend_on_their_distance_only():
    """What the embedding is for: ``<R_m q, R_n k>`` is a function of ``m - n``."""
    q, k = torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    at = torch.tensor([3, 8, 103, 108])
    moved_q, moved_k = energy._positioned(q.expand(4, -1), at), energy._positioned(k.expand(4, -1), at)
    torch.testing.assert_close(moved_q[1] @ moved_k[0], moved_q[3] @ moved_k[2])


def test_the_refitted_covariance_is_that_of_the_stored_rows():
    twin = BY_NAME["basis_before_position"].twin(0)
    assert twin.samples.shape == (TEXTS * POSITIONS, WIDTH)
    seen = twin.samples.T @ twin.samples / len(twin.samples)
    # entries of a second moment of n rows stray by sqrt(2 l_i l_j / n) or so; the largest l is below 1.1
    assert (seen - twin.covariance).abs().max() < 5 * 1.1 * (2 / len(twin.samples)) ** 0.5


@pytest.mark.parametrize("name", [name for name in BY_NAME if name.endswith("quantiser")])
def test_the_engines_return_nothing_to_look_at(name):
    """What is judged left the code through its quantiser only, cut into two regimes, and in unit rows."""
    subject = BY_NAME[name].plant(0)
    rows = subject.samples[:11]
    turned = subject.apply(rows)
    torch.testing.assert_close(turned.norm(dim=-1), torch.ones(11, dtype=torch.float64))
    assert subject.samples.shape == (ROWS, WIDTH)


def test_the_key_basis_behind_a_quantiser_is_that_of_its_keys():
    subject = BY_NAME["values_in_the_key_basis_behind_a_quantiser"].plant(3)
    torch.testing.assert_close(subject.operator(), subject.neighbours["keys"], rtol=0, atol=1e-7)
    right = BY_NAME["values_in_the_key_basis_behind_a_quantiser"].twin(3)
    torch.testing.assert_close(right.operator(), right.basis, rtol=0, atol=1e-7)
    torch.testing.assert_close(right.basis, subject.basis, rtol=0, atol=0)
