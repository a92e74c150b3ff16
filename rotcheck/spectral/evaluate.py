"""What compressed caches cost and what they change: bytes, attention error and perplexity, side by side."""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from rotcheck.errors import RotcheckError
from rotcheck.measures.perplexity import Perplexity, Ratio, paired_ratio, perplexity
from rotcheck.models.caching import with_cache
from rotcheck.slicing.calibrate import evaluating
from rotcheck.spectral.attention import attention_errors
from rotcheck.spectral.build import CacheCodec, build_codec
from rotcheck.spectral.cache import SpectralCache
from rotcheck.spectral.calibrate import CacheCalibration
from rotcheck.spectral.settings import Settings

SCHEMA_VERSION = 1
TOKENS = 4096
"""Length at which a compression ratio is given where none is asked for."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One compressed cache.

    Attributes
    ----------
    name : str
    settings : Settings
    perplexity : float
    ratio : Ratio, optional
        Perplexity over that of the full-precision cache, paired by window; None for a single window.
    attention_error : float
        Relative error of the attention output, the mean over layers of `layer_errors`.
    layer_errors : tuple of float
        As by :func:`rotcheck.spectral.attention_errors`.
    payload_bits, side_bits : float
        Per number: codes, and what else changes from vector to vector.
    bytes_per_token, fixed_bytes : int
        Over all layers and heads; `fixed_bytes` is needed once.
    compression : float
        Bytes of a 16-bit cache over all bytes of this one, at `Evaluation.length` tokens.
    """

    name: str
    settings: Settings
    perplexity: float
    ratio: Ratio | None
    attention_error: float
    layer_errors: tuple[float, ...]
    payload_bits: float
    side_bits: float
    bytes_per_token: int
    fixed_bytes: int
    compression: float


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Rows in the order in which they were asked for, and what they are compared with.

    Attributes
    ----------
    rows : tuple of Row
    full : float
        Perplexity with the uncompressed cache.
    windows, tokens : int
        Windows, and tokens predicted in them.
    attention_tokens : int
        Tokens of the windows on which attention errors were measured.
    full_bytes_per_token : int
        Of the uncompressed cache in 16 bits.
    length : int
        Tokens at which `Row.compression` is given.
    """

    rows: tuple[Row, ...]
    full: float
    windows: int
    tokens: int
    attention_tokens: int
    full_bytes_per_token: int
    length: int
    schema_version: int = SCHEMA_VERSION

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts."""
        return asdict(self)


def evaluate(
    model: PreTrainedModel,
    calibration: CacheCalibration,
    settings: Mapping[str, Settings],
    windows: Sequence[Tensor],
    *,
    attention_windows: Sequence[Tensor] | None = None,
    length: int = TOKENS,
    progress: bool = False,
) -> Evaluation:
    """Build a codec for each of the settings, and compare them. Parameters as for `evaluate_codecs`."""
    codecs = {
        name: build_codec(calibration, wanted)
        for name, wanted in tqdm(settings.items(), desc="codecs", disable=None if progress else True, leave=False)
    }
    return evaluate_codecs(
        model, codecs, windows, attention_windows=attention_windows, length=length, progress=progress
    )


def evaluate_codecs(
    model: PreTrainedModel,
    codecs: Mapping[str, CacheCodec],
    windows: Sequence[Tensor],
    *,
    attention_windows: Sequence[Tensor] | None = None,
    length: int = TOKENS,
    progress: bool = False,
) -> Evaluation:
    """Perplexity, attention error and bytes of several codecs on the same windows.

    Perplexity is of the model with a fresh `SpectralCache` for every batch of windows: each token attends to what the
    cache gives back, its own key and value included. Errors of attention are measured for all codecs in one pass of
    the exact model.

    Parameters
    ----------
    model
        With ``sdpa`` attention.
    codecs
        By name.
    windows : sequence of LongTensor (B, T)
    attention_windows : sequence of LongTensor (B, T), optional
        Those on which attention errors are measured; the first batch of `windows` when left out.
    length : int
        Tokens at which compression ratios are given.
    progress
        Show bars on stderr, if that is a terminal.

    Raises
    ------
    RotcheckError
        No codec, no window, a length below 1, or a codec of another model.
    """
    if not codecs:
        raise RotcheckError("nothing to evaluate: pass at least one named setting")
    if not windows:
        raise RotcheckError("evaluation of no windows: give at least one batch of token ids")
    if length < 1:
        raise RotcheckError(f"a compression ratio at {length} tokens: use at least 1")
    watched = windows[:1] if attention_windows is None else attention_windows
    errors = attention_errors(model, codecs, watched, progress=progress)
    with evaluating(model):
        full = _perplexity(model, None, windows, "full precision", progress)
        measured = {name: _perplexity(model, codec, windows, name, progress) for name, codec in codecs.items()}
    rows = tuple(_row(name, codecs[name], measured[name], full, errors[name], length) for name in codecs)
    return Evaluation(
        rows=rows,
        full=full.perplexity,
        windows=len(full.losses),
        tokens=int(full.tokens.sum()),
        attention_tokens=sum(batch.numel() for batch in watched),
        full_bytes_per_token=2 * next(iter(codecs.values())).numbers_per_token,
        length=length,
    )


def write_json(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write JSON beside ``path`` first, then rename, so that no half-written file is left.

    Numbers that are not finite, which JSON does not have, become strings.

    Raises
    ------
    OSError
        Where it cannot be written.
    """
    target = Path(path)
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        temporary.write_text(json.dumps(_plain(content), indent=1, allow_nan=False) + "\n", encoding="utf-8")
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _perplexity(
    model: PreTrainedModel, codec: CacheCodec | None, windows: Sequence[Tensor], name: str, progress: bool
) -> Perplexity:
    def answer(ids: Tensor) -> object:
        ids = ids.to(model.device)
        if codec is None:
            return model(ids, use_cache=False)
        return model(ids, use_cache=True, **with_cache(model, SpectralCache(codec, model.config)))

    def bar(batches: Any) -> Any:
        return tqdm(batches, desc=f"perplexity, {name}", disable=None if progress else True, leave=False)

    return perplexity(answer, windows, progress=bar)


def _row(name: str, codec: CacheCodec, measured: Perplexity, full: Perplexity, errors: Tensor, length: int) -> Row:
    return Row(
        name=name,
        settings=codec.settings,
        perplexity=measured.perplexity,
        ratio=paired_ratio(measured, full) if len(full.losses) > 1 else None,
        attention_error=errors.mean().item(),
        layer_errors=tuple(errors.tolist()),
        payload_bits=codec.payload_bits,
        side_bits=codec.side_bits,
        bytes_per_token=codec.bytes_per_token,
        fixed_bytes=codec.fixed_bytes,
        compression=codec.ratio(length),
    )
