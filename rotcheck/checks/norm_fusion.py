"""ROT204: gains, biases and means have left the norms of a rotated model."""

from __future__ import annotations

import torch
from torch import Tensor

from rotcheck.checking import Measurement, Missing, Undecided, check
from rotcheck.checks._models import (
    centred,
    describe_site,
    floor_allowance,
    gram_error,
    model_sites,
    record_streams,
    without_stream,
)
from rotcheck.models.exact import rms_eps
from rotcheck.models.sites import Site
from rotcheck.outcome import Distance
from rotcheck.subjects.calling import call, relative, to_float64
from rotcheck.subjects.pair import ModelPair
from rotcheck.subjects.running import cast, model_dtype
from rotcheck.tolerance import UNIT_ROUNDOFF, dtype_name
from rotcheck.witness import Witness

ALONE = Missing(argument="a rotated stream", reason="the stream was left alone, so its norms rightly keep their gains")


@check(code="ROT204", kinds=["ModelPair"], needs=["modules"])
def norm_fusion(subject: ModelPair, witness: Witness) -> list[Measurement | Undecided] | Missing:
    r"""What each norm of ``after`` puts out is a rotation of the original stream, normalised *without* its gain.

    A diagonal gain does not commute with a rotation, so it must move into the readers before rotating:
    ``LN(x) = g * n(x) + b`` becomes ``n(x)`` with ``W diag(g)`` and ``W b``. With h the original stream,
    ``n(h) = (h - mean(h)) / sqrt(var(h) + eps)`` for LayerNorm and ``h / sqrt(mean(h^2) + eps)`` for RMSNorm. The
    output of every norm of ``after`` is compared with ``n(h)`` through Gram matrices, which need no basis.

    Catches
    -------
    A gain left in the norm or folded twice, a mean left in or removed where RMSNorm keeps it, an eps that is not
    the model's own or a divisor that is not the width, where they weigh more than the rounding of the dtype
    (`tensor_bases` compares both exactly).

    Cannot see
    ----------
    Whether the readers took the gain over (`equivalence` does). Undecided at norms whose stream is another already, by
    more than the means of its rows: what is wrong is before them (`streams`). Not applicable where nothing is rotated
    between the norms and their gains are the original's; undecided where all gains are one and biases zero, as in a
    freshly initialised model.

    References
    ----------
    spcl/QuaRot#24, #30; facebookresearch/SpinQuant#14; vllm-project/llm-compressor#1637.
    """
    if (missing := without_stream(subject)) is not None:
        return missing
    batch = subject.batches[0]
    architecture = subject.architecture
    found = model_sites(architecture, subject.before)
    exact = cast(subject.before, torch.float64)
    dtype = model_dtype(subject.after)
    coarse = cast(subject.before, torch.float32 if dtype is torch.float64 else dtype)
    dense = record_streams(exact, architecture, batch)
    noisy = record_streams(coarse, architecture, batch)
    after = cast(subject.after, dtype)
    rotated = record_streams(after, architecture, batch)
    if _unchanged(subject, found) and relative(rotated[0], dense[0]) <= _embedded(dtype, dense[0], noisy[0]):
        return ALONE
    return [
        _measure(subject, site, found, after.get_submodule(site.norm), (h, h_noisy, y), dtype)
        for site, h, h_noisy, y in zip(found, dense, noisy, rotated, strict=True)
    ]


def _unchanged(subject: ModelPair, found: tuple[Site, ...]) -> bool:
    """Whether every norm of ``after`` has the gain and the bias of the original's."""
    for site in found:
        own, norm = subject.after.get_submodule(site.norm), subject.before.get_submodule(site.norm)
        for name in ("weight", "bias"):
            held, first = getattr(own, name, None), getattr(norm, name, None)
            if (held is None) != (first is None) or (held is not None and not torch.equal(held, first.to(held))):
                return False
    return True


def _embedded(dtype: torch.dtype, dense: Tensor, noisy: Tensor) -> float:
    return floor_allowance(dtype, dense.shape[-1], lambda _: relative(noisy, dense)).value


def _measure(
    subject: ModelPair,
    site: Site,
    found: tuple[Site, ...],
    own: torch.nn.Module,
    streams: tuple[Tensor, Tensor, Tensor],
    dtype: torch.dtype,
) -> Measurement | Undecided:
    h, h_noisy, y = streams
    architecture = subject.architecture
    layernorm = architecture.norm == "layernorm"
    if (error := _beside_means(y, h)) > _stream_floor(dtype, site, h, h_noisy):
        return Undecided(
            reason=f"the stream before the {site.name} is another already, so its norm cannot be compared",
            needs=f"a stream that is a rotation of the original's: check streams names what wrote {site.name}",
            facts=(("error of the stream, its means left out", error),),
        )
    # Of the original itself: in its float64 copy the gain has its offset already.
    norm = subject.before.get_submodule(site.norm)
    eps = rms_eps(norm)
    expected = _normalised(h, eps, mean=layernorm)
    coarse = _normalised(h_noisy, eps, mean=layernorm)
    device = next(subject.after.parameters()).device
    output = to_float64(call(own, y.to(dtype).to(device), what=f"{site.norm} of {subject}"))
    weight, shift = getattr(norm, "weight", None), getattr(norm, "bias", None)
    gain = 1.0 if weight is None else to_float64(weight) + architecture.gain_offset
    bias = 0.0 if shift is None else to_float64(shift)
    rivals = {}
    if weight is not None or shift is not None:  # a norm without either has nothing that could be left in
        rivals["a norm with its gain left in"] = expected * gain + bias
        rivals["a norm with its gain folded twice"] = expected * gain * gain + bias
    rivals |= {
        ("a norm that keeps the mean" if layernorm else "a norm that removes the mean"): _normalised(
            h, eps, mean=not layernorm
        ),
    }
    distances = tuple(
        Distance(name=name, error=gram_error(output, value), separation=gram_error(value, expected))
        for name, value in rivals.items()
    )
    allowed = floor_allowance(dtype, h.shape[-1], lambda _: gram_error(coarse, expected), rotations=2 * site.index + 2)
    return Measurement(
        claim=Distance(name="norms without gain", error=gram_error(output, expected)),
        rivals=distances,
        allowed=allowed,
        verb="has",
        place=describe_site(site, found),
        witness=f"Gram matrix of {len(h)} normalised tokens, {dtype_name(dtype)}",
        hint="fold the norm's gain and bias into its readers, and its mean into the writers, before rotating",
        needs=_needs(distances, allowed.value, dtype),
    )


def _needs(rivals: tuple[Distance, ...], allowed: float, dtype: torch.dtype) -> str:
    """What would tell the rivals that are too close: a finer dtype where their distance is no rounding of float64."""
    finer = UNIT_ROUNDOFF["float64"] / UNIT_ROUNDOFF[dtype_name(dtype)]
    near = [rival.separation for rival in rivals if not rival.separation > 2 * allowed]
    if near and min(near) > 2 * allowed * finer:
        return f"both models in a finer dtype: the rounding of {dtype_name(dtype)} hides gains and means this small"
    return "a model whose norms have gains other than one and streams whose rows have a mean"


def _beside_means(stream: Tensor, reference: Tensor) -> float:
    """``|D|_F / |C C.T|_F`` of what Gram matrices differ by, other than by a mean, which adds ``n m m.T``.

    C is the reference with its means removed. A stream ``H' = (C + m 1.T) U`` has ``H' H'.T = C C.T + n m m.T``,
    so D is the difference without its largest eigenvalue.
    """
    plain = centred(reference)
    expected = plain @ plain.T
    difference = stream @ stream.T - expected
    if not difference.isfinite().all():
        return float("inf")
    values = torch.linalg.eigvalsh(difference)
    return (values[:-1].norm() / expected.norm()).item()


def _stream_floor(dtype: torch.dtype, site: Site, h: Tensor, h_noisy: Tensor) -> float:
    plain, noisy = centred(h), centred(h_noisy)
    return floor_allowance(dtype, h.shape[-1], lambda _: gram_error(noisy, plain), rotations=2 * site.index + 2).value


def _normalised(h: Tensor, eps: float, *, mean: bool) -> Tensor:
    h = centred(h) if mean else h
    return h / (h.square().mean(dim=-1, keepdim=True) + eps).sqrt()
