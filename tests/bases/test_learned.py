"""learn: the best iterate of a descent that starts at the start, with nothing drawn at random, and errors by name."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.nn.utils.parametrizations import orthogonal

from rotcheck.bases import haar, hadamard, learn, objectives, orthogonality_error, polar_factor, principal_basis
from rotcheck.errors import RotcheckError
from rotcheck.measures.outliers import outlier_rows

UNIT = 2.0**-53
D = 12


def rows(seed=0, n=60, d=D):
    return outlier_rows(n, d, seed=seed)


@pytest.fixture(scope="module")
def objective():
    return objectives.rate(rows(), 0.1)


@pytest.fixture(scope="module")
def learned(objective):
    return learn(objective, hadamard(D, signs=1), steps=40)


def test_the_library_starts_at_the_start_bit_by_bit():
    """What `learn` builds on: A is zero, the Cayley transform of zero is the identity, and ``U @ I`` is U."""
    start = polar_factor(haar(D, seed=3))
    holder = torch.nn.Module()
    holder.register_parameter("basis", torch.nn.Parameter(start.clone()))
    orthogonal(holder, "basis", orthogonal_map="cayley")
    assert torch.equal(holder.basis, start)


def test_the_first_value_is_that_of_the_start(objective):
    start = polar_factor(haar(D, seed=3))
    found = learn(objective, start, steps=3)
    assert found.start == found.history[0]
    assert found.start == objective(start).item()


def test_no_steps_give_the_start(objective):
    start = polar_factor(haar(D, seed=4))
    found = learn(objective, start, steps=0)
    assert torch.equal(found.basis, start)
    assert (found.step, found.start, found.history) == (0, found.end, (found.end,))


def test_what_is_returned(learned, objective):
    assert learned.basis.shape == (D, D)
    assert learned.basis.dtype == torch.float64
    assert not learned.basis.requires_grad
    assert len(learned.history) == 41
    assert learned.end == objective(learned.basis).item()
    assert learned.end < learned.start
    assert repr(learned) == f"Learned({learned.start:.4g} -> {learned.end:.4g}, step {learned.step} of 40)"


def seen(steps, rate, d=2):
    """Iterates of a descent along a constant slope, from the identity."""
    iterates = []

    def objective(basis):
        iterates.append(basis.detach().clone())
        return basis[0, 1]

    learn(objective, torch.eye(d, dtype=torch.float64), steps=steps, rate=rate)
    return iterates[: steps + 1]


@pytest.mark.parametrize("rate", [0.01, 0.2, 1.0])
def test_the_rate_is_the_first_step_of_an_entry(rate):
    """Adam's first step is ``rate`` whatever the slope; the Cayley transform of it turns by ``2 atan(rate / 2)``."""
    first = seen(3, rate)[1]
    angle = torch.atan2(first[1, 0], first[0, 0]).abs().item()
    assert angle == pytest.approx(2 * math.atan(rate / 2), rel=1e-6)


def test_steps_fall_to_zero():
    """As half a cosine: the last step of 20 is ``(1 - cos(pi / 20)) / 2`` of the rate, 0.6 %."""
    iterates = seen(20, 0.01)
    moves = [(after - before).norm().item() for before, after in itertools.pairwise(iterates)]
    assert moves == sorted(moves, reverse=True)
    assert moves[-1] / moves[0] == pytest.approx((1 - math.cos(math.pi / 20)) / 2, rel=0.05)


def test_the_best_iterate_is_kept_not_the_last():
    """Steps that are too long pass the best point, and end above it."""
    found = learn(lambda U: (U[0, 1] + 0.3).square(), torch.eye(2, dtype=torch.float64), steps=12, rate=0.25)
    assert 0 < found.step < 12
    assert found.step == found.history.index(min(found.history))
    assert found.end == pytest.approx(min(found.history), rel=1e-9)
    assert found.end < 0.1 * found.history[-1]


def test_a_polar_factor_that_loses_to_the_start_is_not_taken():
    """An objective that sees more than rounding in it: the start is returned, with its own value."""
    start = polar_factor(haar(D, seed=3))

    def objective(basis):
        value = 2.0 if not basis.requires_grad else 1.0 if torch.equal(basis, start) else 0.5
        return value + 0.1 * basis[0, 1]

    found = learn(objective, start, steps=3)
    assert all(value < found.start for value in found.history[1:])
    assert (found.step, found.end) == (0, found.start)
    assert torch.equal(found.basis, start)


def test_a_rate_that_only_does_harm_returns_the_start():
    """From the optimum nothing lowers the rate of Gaussian coefficients."""
    x = rows(2)
    best = principal_basis(x.T @ x)[0]
    turned = best @ torch.matrix_exp(1e-9 * (haar(D, seed=0) - haar(D, seed=0).T))
    found = learn(objectives.rate(x, 0.1), turned, steps=5, rate=3.0)
    assert found.step == 0
    assert found.end == found.start
    assert min(found.history) == found.start
    assert found.history[1] > found.start


def test_orthogonal_to_rounding_whatever_the_rate(objective):
    for rate in (0.01, 0.3, 10.0):
        found = learn(objective, hadamard(D, signs=1), steps=25, rate=rate)
        assert orthogonality_error(found.basis) <= 2 * UNIT, rate


def test_twice_the_same_bit_by_bit(learned, objective):
    again = learn(objective, hadamard(D, signs=1), steps=40)
    assert torch.equal(again.basis, learned.basis)
    assert again.history == learned.history


def test_random_state_gradients_and_start_are_left_alone(objective):
    start = hadamard(D, signs=2)
    before, state = start.clone(), torch.get_rng_state()
    with torch.no_grad():
        found = learn(objective, start, steps=3)
        assert not torch.is_grad_enabled()
    assert found.history[3] < found.history[0]
    assert torch.equal(start, before)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_coarse_start_is_repaired_to_float64(objective):
    start = hadamard(D, signs=1).to(torch.bfloat16)
    found = learn(objective, start, steps=0)
    assert orthogonality_error(start) > 1e-4
    assert orthogonality_error(found.basis) <= 2 * UNIT


def test_any_differentiable_objective_serves():
    """Distance from a rotation that the start can reach: the descent gets there."""
    generator = torch.Generator().manual_seed(5)
    skew = torch.randn(D, D, generator=generator, dtype=torch.float64)
    target = torch.matrix_exp(0.1 * (skew - skew.T))
    found = learn(lambda U: (U - target).square().sum(), torch.eye(D, dtype=torch.float64), steps=150)
    assert found.end < 1e-3 * found.start


def test_a_determinant_is_kept(objective):
    """Cayley transforms have determinant one."""
    for seed in range(4):
        start = haar(D, seed=seed)
        found = learn(objective, start, steps=10)
        assert torch.linalg.det(found.basis) == pytest.approx(torch.linalg.det(start).item())


def test_progress_is_silent_unless_there_is_a_terminal(objective, capfd):
    learn(objective, hadamard(D), steps=2, progress=True)
    learn(objective, hadamard(D), steps=2)
    assert "".join(capfd.readouterr()) == ""


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"steps": -1}, "steps is -1; pass 0 or more"),
        ({"rate": 0.0}, "rate is 0.0; pass a positive one"),
        ({"rate": math.inf}, "rate is inf"),
        ({"rate": math.nan}, "rate is nan"),
        ({"start": torch.ones(D, D)}, "of the start is .* repair it first: polar_factor\\(start\\)"),
        ({"start": 1.001 * hadamard(D)}, "more than .* = 8 \\(1 \\+ sqrt\\(4 d\\)\\) u of float64"),
        ({"start": torch.eye(D, D - 1)}, "start has shape \\(12, 11\\)"),
        ({"start": torch.eye(D, dtype=torch.long)}, "torch.int64; pass a real"),
        ({"start": torch.eye(D + 1)}, "rows with 12 coordinates, and the basis is \\(13, 13\\)"),
        ({"objective": lambda U: 3.0}, "gave float, not a tensor of one number"),
        ({"objective": lambda U: U}, "not a tensor of one number"),
        ({"objective": lambda U: U.detach().sum()}, "no gradient in the basis"),
        ({"objective": lambda U: U.sum() * math.nan}, "is nan after 0 steps; start elsewhere"),
    ],
)
def test_what_is_wrong_is_named(objective, changes, says):
    given = {"objective": objective, "start": hadamard(D), "steps": 2} | changes
    with pytest.raises(RotcheckError, match=says) as raised:
        learn(given.pop("objective"), given.pop("start"), **given)
    assert "\n" not in str(raised.value)


def test_a_value_that_stops_being_finite_says_after_how_many_steps():
    start = torch.eye(3, dtype=torch.float64)

    def falls_apart(basis):
        return (basis[0, 1] if torch.equal(basis, start) else basis[0, 1] / 0).sum()

    with pytest.raises(RotcheckError, match=r"after 1 steps; lower the rate"):
        learn(falls_apart, start, steps=4)
