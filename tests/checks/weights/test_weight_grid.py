"""weight_grid: the stored weight lies on the grid that is declared, in the basis in which it is multiplied."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rotcheck.bases import haar, hadamard
from rotcheck.outcome import Outcome
from rotcheck.quantize import RoundToNearest, quantize_weight

NAME = "weight_grid"
AFTER, BACK = "W' @ basis.T (rotated after rounding)", "W' @ basis (rotated back after rounding)"
GROUPS = RoundToNearest(bits=3, group=8)


def rounded(weight, bits, group=None, symmetric=True):
    return quantize_weight(weight, RoundToNearest(bits=bits, group=group, symmetric=symmetric)).dequantize()


@pytest.fixture(scope="module")
def case(data):
    weight, x = data(4)
    return weight, x, haar(40, seed=9)


def test_passes_on_our_path(run, right, kind):
    settings, basis, calibrated = kind
    verdict = run(NAME, right(settings, basis, calibrated, seed=1))
    assert verdict.outcome is Outcome.PASSED, str(verdict)
    assert verdict.power > 4


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group", [None, 8, 20])
@pytest.mark.parametrize("symmetric", [True, False])
def test_rotated_after_rounding_or_back(run, toy, case, bits, group, symmetric):
    weight, x, u = case
    settings = {"bits": bits, "group": group, "symmetric": symmetric}
    right = rounded(weight @ u, **settings)
    assert run.outcome(NAME, toy(weight, x, u, stored=right, **settings)) == "passed"
    assert run.matched(NAME, toy(weight, x, u, stored=rounded(weight, **settings) @ u, **settings)) == AFTER
    assert run.matched(NAME, toy(weight, x, u, stored=right @ u, **settings)) == AFTER
    assert run.matched(NAME, toy(weight, x, u, stored=right @ u.T, **settings)) == BACK


def test_the_first_line_says_what_is_wrong_and_where(run, toy, case):
    weight, x, u = case
    stored = rounded(weight @ u, 4)
    stored[17, 3] += (stored[17].max() - stored[17].min()) / 37  # a step is a 14th or so: no finer grid has it
    verdict = run(NAME, toy(weight, x, u, stored=stored))
    assert verdict.headline.startswith("toy does not match W', 4 bits for each output channel at output channel 17 (")
    assert f"matches none of {AFTER}, {BACK}, W', but in groups of 20" in verdict.headline
    stored = rounded(weight @ u, 4, 8)
    stored[30, 21] *= 1.01
    verdict = run(NAME, toy(weight, x, u, stored=stored, group=8))
    assert verdict.place == "output channel 30, inputs 16 to 23"


@pytest.mark.parametrize("more", [1, 2, 4])
def test_more_bits_than_declared(run, toy, case, more):
    weight, x, u = case
    verdict = run(NAME, toy(weight, x, u, stored=rounded(weight @ u, 4 + more), bits=4))
    assert verdict.matched == f"W', but with {4 + more} bits"


def test_fewer_bits_are_on_the_grid_too(run, toy, case):
    weight, x, u = case
    assert run.outcome(NAME, toy(weight, x, u, stored=rounded(weight @ u, 2), bits=4)) == "passed"


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("size", [20, 10, 8])
def test_groups_where_channels_are_declared(run, toy, case, bits, size):
    weight, x, u = case
    assert run.matched(NAME, toy(weight, x, u, bits, rounded(weight @ u, bits, size))) == f"W', but in groups of {size}"


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group", [20, 10, 8, 5])
def test_channels_where_groups_are_declared(run, toy, case, bits, group):
    weight, x, u = case
    verdict = run(NAME, toy(weight, x, u, bits, rounded(weight @ u, bits), group=group))
    assert verdict.matched == "one scale for each output channel"
    assert verdict.headline == f"toy has one scale for each output channel, declared a scale for each group of {group}"
    assert run.outcome(NAME, toy(weight, x, u, bits, rounded(weight @ u, bits, group), group=group)) == "passed"


def test_a_group_of_all_inputs_is_a_channel(run, toy, case):
    weight, x, u = case
    assert run.outcome(NAME, toy(weight, x, u, stored=rounded(weight @ u, 4), group=40)) == "passed"


def test_groups_of_output_channels(run, toy, case):
    """The scales of the transposed weight: each input has one, and a channel lies on no grid."""
    weight, x, u = case
    stored = rounded((weight @ u).T, 4).T
    verdict = run(NAME, toy(weight, x, u, stored=stored))
    assert (verdict.outcome.value, verdict.matched) == ("failed", "")


def test_other_grids_of_the_same_kind_pass(run, toy, case):
    """A scale or a zero point of its own choice: on a grid all the same."""
    weight, x, u = case
    right = rounded(weight @ u, 4)
    for stored in (1.7 * right, right + 0.1, -right):
        assert run.outcome(NAME, toy(weight, x, u, stored=stored)) == "passed"


def test_pruned_channels_are_on_every_grid(run, toy, case):
    weight, x, u = case
    stored = rounded(weight @ u, 4)
    stored[::5] = 0
    assert run.outcome(NAME, toy(weight, x, u, stored=stored)) == "passed"


@pytest.mark.parametrize(
    "basis",
    [
        torch.eye(40, dtype=torch.float64),
        torch.eye(40, dtype=torch.float64).roll(3, 0),
        torch.diag(torch.tensor([1.0, -1.0] * 20, dtype=torch.float64)),
    ],
    ids=["identity", "permutation", "signs"],
)
def test_a_basis_that_cannot_tell(run, toy, case, basis):
    weight, x, _ = case
    verdict = run(NAME, toy(weight, x, basis))
    assert verdict.outcome is Outcome.UNDECIDED
    assert f"cannot tell W', 4 bits for each output channel from {AFTER} on this witness" in verdict.headline
    assert "a basis that is no permutation of axes" in verdict.needs


@pytest.mark.parametrize(("merged", "outcome"), [(False, "passed"), (True, "failed")])
def test_make_decides_where_the_basis_cannot(run, toy, case, merged, outcome):
    weight, x, _ = case

    def made(u):
        return toy(weight, x, u, stored=rounded(weight, 4) @ u if merged else rounded(weight @ u, 4), make=made)

    assert run.outcome(NAME, made(torch.eye(40, dtype=torch.float64))) == outcome


def test_any_two_numbers_are_on_a_grid(run, toy, case):
    weight, x, u = case
    stored = rounded(weight @ u, 4, 2)
    verdict = run(NAME, toy(weight, x, u, stored=stored, group=2))
    assert verdict.outcome is Outcome.UNDECIDED
    assert "groups of three inputs or more" in verdict.needs


@pytest.mark.parametrize(
    ("dtype", "bits", "outcome"),
    [
        (torch.float32, 2, "passed"),
        (torch.float32, 8, "passed"),
        (torch.float16, 2, "passed"),
        (torch.float16, 4, "passed"),
        (torch.float16, 5, "passed"),
        (torch.bfloat16, 2, "passed"),
        (torch.float16, 8, "undecided"),
        (torch.bfloat16, 4, "passed"),
        (torch.bfloat16, 8, "undecided"),
    ],
)
def test_as_stored_by_a_runtime(run, toy, case, dtype, bits, outcome):
    weight, x, u = case
    stored = rounded(weight @ u, bits)
    found = run(NAME, toy(weight, x, u, bits, stored.to(dtype)))
    assert found.outcome.value == outcome, str(found)
    by_product = replace(toy(weight, x.to(dtype), u, bits, stored), quantized=lambda rows: rows @ stored.to(dtype).T)
    assert run.outcome(NAME, by_product) == outcome
    if outcome == "passed":
        assert run.matched(NAME, toy(weight, x, u, bits, (rounded(weight, bits) @ u).to(dtype))) == AFTER
    else:
        assert "a weight stored in float32" in found.needs


def test_coarse_groups_are_undecided_too(run, toy, case):
    weight, x, u = case
    subject = toy(weight, x, u, 8, rounded(weight @ u, 8, 8).to(torch.bfloat16), group=8)
    assert run.outcome(NAME, subject) == "undecided"


def test_a_weight_on_a_grid_before_it_was_rotated(run, toy, case):
    """A float checkpoint that holds whole numbers does not confuse the bases."""
    weight, x, u = case
    whole = (8 * weight).round()
    assert run.outcome(NAME, toy(whole, x, u, stored=rounded(whole @ u, 4))) == "passed"


@pytest.mark.parametrize(
    ("n", "right", "wrong"), [(4, "undecided", "undecided"), (8, "passed", "failed"), (12, "passed", "failed")]
)
def test_small_hadamard_matrices(run, toy, n, right, wrong):
    """Sums of codes are whole numbers: of four codes few enough for the grid, of eight too many."""
    generator = torch.Generator().manual_seed(n)
    weight = torch.randn(90, n, generator=generator, dtype=torch.float64)
    x = torch.randn(50, n, generator=generator, dtype=torch.float64)
    u = hadamard(n, signs=generator)
    assert run.outcome(NAME, toy(weight, x, u, stored=rounded(weight @ u, 4))) == right
    assert run.outcome(NAME, toy(weight, x, u, stored=rounded(weight, 4) @ u)) == wrong


def test_a_weight_that_is_not_finite(run, toy, case):
    weight, x, u = case
    verdict = run(NAME, toy(weight, x, u, stored=weight / 0))
    assert verdict.headline == "toy cannot be run: the weight of toy gives numbers that are not finite"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("symmetric", [True, False])
def test_no_right_layer_fails_in_any_dtype(run, toy, data, dtype, symmetric):
    for seed in range(4):
        weight, x = data(seed)
        u = haar(40, seed=seed)
        for bits, group in [(2, None), (4, None), (3, 8)]:
            stored = rounded(weight @ u, bits, group, symmetric).to(dtype)
            layer = toy(weight, x, u, bits, stored, group=group, symmetric=symmetric)
            assert run.outcome(NAME, layer) in ("passed", "undecided")
            if symmetric:
                assert run(NAME, layer).claim.error < run(NAME, layer).allowed.value


def test_four_bits_in_bfloat16_are_told_from_a_weight_rotated_after_rounding(run, toy, case):
    weight, x, u = case
    wrong = (rounded(weight, 4) @ u).to(torch.bfloat16)
    assert run.matched(NAME, toy(weight, x, u, 4, wrong)) == AFTER


def test_a_bias_that_the_product_adds_is_rounded_with_it(run, toy, case):
    """In bfloat16 a bias of 40 steps rounds what is multiplied to a tenth of a step, which is no other grid."""
    weight, x, u = case
    stored = rounded(weight @ u, 4).to(torch.bfloat16)
    bias = (40 * (stored.amax() - stored.amin()) / 15).expand(len(stored))
    layer = toy(weight, x.to(torch.bfloat16), u, 4, lambda rows: rows @ stored.T + bias)
    verdict = run(NAME, layer)
    assert verdict.outcome is Outcome.UNDECIDED, str(verdict)
    assert verdict.needs.startswith("a basis that is no permutation of axes")
