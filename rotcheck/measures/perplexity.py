"""Perplexity window by window, so that two models can be compared on the same text."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats

from rotcheck.errors import RotcheckError


@dataclass(frozen=True, kw_only=True, eq=False)
class Perplexity:
    """Summed negative log-likelihood per window, in nats, and the number of tokens that each predicts.

    Attributes
    ----------
    losses : ndarray, shape (windows,)
    tokens : ndarray, shape (windows,)
    """

    losses: np.ndarray
    tokens: np.ndarray

    @property
    def perplexity(self) -> float:
        """``exp(sum of losses / sum of tokens)``: over tokens, not a mean of window means."""
        return _exp(self.losses.sum() / self.tokens.sum())

    def __repr__(self) -> str:
        return f"Perplexity({self.perplexity:.3f}, {len(self.losses)} windows, {int(self.tokens.sum())} tokens)"


def perplexity(
    model: Callable[..., object],
    windows: Iterable[torch.Tensor],
    *,
    progress: Callable[[Iterable[torch.Tensor]], Iterable[torch.Tensor]] = iter,
) -> Perplexity:
    """Score every token but the first of each row.

    Parameters
    ----------
    model : callable
        ``model(input_ids)`` gives an object with ``.logits`` or the logits (B, T, vocabulary) themselves.
    windows : iterable of LongTensor (B, T)
    progress : callable
        Wraps the windows, for instance in ``tqdm``.

    Raises
    ------
    RotcheckError
        For no windows, or a loss that is not finite.

    Notes
    -----
    Log-probabilities are taken in float32 at least, whatever the dtype of the logits.
    """
    losses, tokens = [], []
    with torch.inference_mode():
        for batch in progress(windows):
            answer = model(batch)
            logits = getattr(answer, "logits", answer)[:, :-1]
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            targets = batch[:, 1:].to(logits.device)
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
            losses.append(loss.view(targets.shape).double().sum(1).cpu().numpy())
            tokens.append(np.full(len(targets), targets.shape[1]))
    if not losses:
        raise RotcheckError("perplexity of no windows: give at least one batch of token ids")
    total = np.concatenate(losses)
    if not np.isfinite(total).all():
        raise RotcheckError(f"window {int(np.flatnonzero(~np.isfinite(total))[0])} has a loss that is not finite")
    return Perplexity(losses=total, tokens=np.concatenate(tokens))


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Perplexity of one model over that of another, with a paired bootstrap interval."""

    value: float
    low: float
    high: float


def paired_ratio(
    model: Perplexity, reference: Perplexity, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Ratio:
    """``ppl(model) / ppl(reference)`` and its bootstrap interval over windows, resampled in pairs.

    The windows of one text differ far more from one another than two models do on the same window, so the
    two must be resampled together. Percentile intervals by `scipy.stats.bootstrap`.

    Raises
    ------
    RotcheckError
        When the two were not measured on the same windows, or on one window only.
    """
    if not np.array_equal(model.tokens, reference.tokens):
        raise RotcheckError(
            f"{len(model.tokens)} and {len(reference.tokens)} windows cannot be paired: measure both on the same text"
        )
    if len(model.losses) < 2:
        raise RotcheckError("one window has no interval: measure both on two windows or more")
    difference = model.losses - reference.losses

    def mean(d: Sequence[float], t: Sequence[float], axis: int = -1) -> np.ndarray:
        return np.sum(d, axis=axis) / np.sum(t, axis=axis)

    interval = stats.bootstrap(
        (difference, reference.tokens), mean, paired=True, vectorized=True, confidence_level=confidence,
        n_resamples=resamples, method="percentile", rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    value = difference.sum() / reference.tokens.sum()
    return Ratio(value=_exp(value), low=_exp(interval.low), high=_exp(interval.high))


def _exp(nats: float) -> float:
    """``exp``, infinite where a broken model's loss is beyond the range of a float."""
    try:
        return math.exp(nats)
    except OverflowError:
        return math.inf
