"""Right and wrong models, built once a session, and a judge that runs one check by name."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from rotcheck.checking import Check
from rotcheck.defects.fusion import MEANS
from rotcheck.models import bundled
from rotcheck.models.adversarial import adversarial_batch, adversarial_opt
from rotcheck.models.loading import load_model, load_tokenizer
from rotcheck.models.text import read_text, token_windows
from rotcheck.outcome import Outcome, Verdict
from rotcheck.registry import builtin_checks
from rotcheck.slicing import Plan, Schedule, Steps, calibrate, make_plan, random_plan, rotate_and_slice
from rotcheck.subjects.pair import ModelPair
from rotcheck.subjects.sliced import SlicedModel
from rotcheck.witness import Witness

LAYERS, WIDTH = 3, 40
RIGHT = Steps()
SHAPES = {
    "per-layer": {"grouping": "per-layer"},
    "global": {"grouping": "global", "tied": False},
    "k1": {"grouping": "k-block:1", "change": "mlp", "word_embed_proj_dim": 24},
    "k1-attention": {"grouping": "k-block:1", "padded": False},
    "k2-uneven": {"grouping": "k-block:2", "change": "mlp", "enable_bias": False},
    "k2-uneven-attention": {"grouping": "k-block:2", "tied": False, "word_embed_proj_dim": 24},
    "k3-of-5-attention": {"grouping": "k-block:3", "layers": 5},
    "float32-per-layer": {"grouping": "per-layer", "dtype": torch.float32, "padded": False, "enable_bias": False},
    "float32-k2-attention": {"grouping": "k-block:2", "dtype": torch.float32, "word_embed_proj_dim": 24},
}
COARSE = {
    "bfloat16-per-layer": {"grouping": "per-layer", "dtype": torch.bfloat16},
    "bfloat16-k2-attention": {"grouping": "k-block:2", "dtype": torch.bfloat16, "padded": False},
    "bfloat16-projected": {"grouping": "k-block:1", "dtype": torch.bfloat16, "word_embed_proj_dim": 24},
}


def _model(seed, layers, padded, dtype, options):
    model = adversarial_opt(seed=seed, layers=layers, hidden_size=WIDTH, dtype=dtype, **options)
    return model, adversarial_batch(model, seed=seed + 1, padded=padded)


def make_pair(
    *, seed=0, grouping="k-block:2", change="attention", steps=RIGHT, layers=LAYERS, padded=True,
    dtype=torch.float64, **options,
) -> ModelPair:  # fmt: skip
    """An original and its rotation by independent Haar bases at full width."""
    model, batch = _model(seed, layers, padded, dtype, options)
    plan = random_plan(WIDTH, layers, grouping, seed=seed, change=change if grouping[0] == "k" else "mlp")
    return ModelPair(model, rotate_and_slice(model, plan, steps=steps), inputs=batch, name="subject")


def make_sliced(
    *, seed=0, grouping="k-block:2", change="attention", steps=RIGHT, layers=LAYERS, padded=True,
    dtype=torch.float64, schedule=None, statistic="raw", used=lambda plan: plan, declared=lambda plan: plan, **options,
) -> SlicedModel:  # fmt: skip
    """A model sliced by a quarter with principal axes; ``used`` and ``declared`` change what made it, or its claim."""
    model, batch = _model(seed, layers, padded, dtype, options)
    more = adversarial_batch(model, seed=seed + 2, batch=12, length=32)
    calibration = calibrate(model, [batch, more], statistics=("raw", "token_rms"))
    schedule = schedule or Schedule.constant(0.25, round_to=2)
    change = change if grouping[0] == "k" else "mlp"
    plan = make_plan(calibration, grouping, schedule, change=change, statistic=statistic)
    return SlicedModel(
        rotate_and_slice(model, used(plan), steps=steps), inputs=batch, original=model, plan=declared(plan),
        calibration=calibration, statistic=statistic, name="subject",
    )  # fmt: skip


@pytest.fixture(scope="session")
def build():
    """``pair(...)``, ``sliced(...)``, ``bases(f)``: a plan with other bases; right steps, steps that leave means."""

    def bases(change):
        return lambda plan: replace(plan, bases=tuple(change(basis).contiguous() for basis in plan.bases))

    means = {
        field: value
        for _, _, steps in MEANS
        for field, value in vars(steps).items()
        if value is not getattr(RIGHT, field)
    }
    return SimpleNamespace(
        pair=make_pair, sliced=make_sliced, bases=bases, right=RIGHT, all_means=replace(RIGHT, **means)
    )


@pytest.fixture(scope="session")
def judge():
    """Run a check by its name: a verdict."""
    table: dict[str, Check] = {check.name: check for check in builtin_checks()}

    def run(name: str, subject: object, seed: int = 0) -> Verdict:
        return table[name].run(subject, Witness(seed=seed))

    return run


@pytest.fixture(scope="session")
def passes(judge):
    def check(name, subject):
        verdict = judge(name, subject)
        assert verdict.outcome is Outcome.PASSED, f"{subject}\n{verdict}"
        return verdict

    return check


@pytest.fixture(scope="session")
def fails(judge):
    def check(name, subject):
        verdict = judge(name, subject)
        assert verdict.outcome is Outcome.FAILED, f"{subject}\n{verdict}"
        return verdict

    return check


@pytest.fixture(scope="session")
def lacks(judge):
    """The check does not apply, because this argument is missing."""

    def check(name, subject, argument):
        verdict = judge(name, subject)
        assert verdict.outcome is Outcome.NOT_APPLICABLE, str(verdict)
        assert f"does not supply {argument}" in verdict.headline
        assert verdict.needs == f"pass {argument}=... to decide this check"
        return verdict

    return check


@pytest.fixture(scope="session", params=SHAPES)
def right_pair(request):
    return replace(make_pair(**SHAPES[request.param]), name=request.param)


@pytest.fixture(scope="session", params=SHAPES)
def right_sliced(request):
    return replace(make_sliced(**SHAPES[request.param]), name=request.param)


@pytest.fixture(scope="session", params=COARSE)
def coarse_pair(request):
    return replace(make_pair(**COARSE[request.param]), name=request.param)


@pytest.fixture(scope="session", params=COARSE)
def coarse_sliced(request):
    return replace(make_sliced(**COARSE[request.param]), name=request.param)


@pytest.fixture(scope="session")
def callables():
    """Two plain functions from ids to logits that agree."""
    model = adversarial_opt(seed=9)
    ids = adversarial_batch(model, seed=9, padded=False)["input_ids"]
    return ModelPair(
        lambda tokens: model(input_ids=tokens).logits, lambda tokens: model(input_ids=tokens).logits, inputs=ids
    )


@pytest.fixture(scope="session")
def trained():
    """The bundled model in float64, a batch of WikiText, and a calibration."""
    model = load_model("bundled", torch.float64)
    tokenizer, text = load_tokenizer("bundled"), read_text(bundled.calibration_text())[:20_000]
    windows = token_windows(tokenizer, text, context=64, windows=16, seed=0)
    batch = token_windows(tokenizer, text, context=24, windows=3)[0]
    return SimpleNamespace(model=model, ids=batch, calibration=calibrate(model, windows), windows=windows)


@pytest.fixture(scope="session")
def full_width_plan(trained):
    def plan(grouping: str, change: str = "mlp") -> Plan:
        return make_plan(trained.calibration, grouping, Schedule.constant(0.0), change=change)

    return plan
