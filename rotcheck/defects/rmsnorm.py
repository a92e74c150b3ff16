"""Means, an eps and gains that a rotated model with RMSNorms has wrong: what a tolerance fitted to the error hides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from rotcheck.defects._pairs import RIGHT, rotated_pair, twin
from rotcheck.defects.defect import Defect
from rotcheck.models.declared import architecture_of
from rotcheck.slicing import Plan, Steps

CENTRED = replace(RIGHT, embeddings_centred=lambda norm: True)
ALL_CENTRED = replace(CENTRED, writers_centred=lambda norm: True)
FIXED_EPS = replace(RIGHT, norm_eps=lambda eps: 1e-5)
OFFSET_FORGOTTEN = replace(RIGHT, full_gain=lambda stored, offset: stored)
OFFSET_INVENTED = replace(RIGHT, full_gain=lambda stored, offset: stored + 1.0)

WEAK = {"means": 0.1, "stream": 0.01}
"""Row means of embeddings a tenth of the usual: the mean square error of subtracting them is then below 8e-3. A stream
so small that an eps of 1e-5 in place of 1e-6 moves the logits by some hundredths."""

MODELS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "llama": {"model_type": "llama"},
        "qwen3": {"model_type": "qwen3", "tied": True},
        "gemma": {"model_type": "gemma", "tied": True},
        "weak_llama": {"model_type": "llama", **WEAK},
        "weak_gemma": {"model_type": "gemma", "tied": True, **WEAK},
    }
)
"""Gains stored either way, embeddings tied or not, and a stream of the usual size or a weak one."""


def _tied_in_place(model: Any, plan: Plan) -> Steps:
    """Folding the final norm's gain into the shared tensor, before the embeddings are read from it."""
    stored, offset = model.model.norm.weight.detach().double(), architecture_of(model).gain_offset
    gain = RIGHT.full_gain(stored, offset)
    return replace(RIGHT, embed=lambda table, basis: RIGHT.embed(table * gain, basis))


NORMAL, ALL = ("llama", "qwen3", "gemma"), tuple(MODELS)
LOGITS = ("precision_scaling", "equivalence")

MISTAKES: tuple[tuple[str, str, str, Steps | Callable[[Any, Plan], Steps], tuple[str, ...], tuple[str, ...]], ...] = (
    ("embedding_mean_subtracted", "facebookresearch/SpinQuant#14; vllm-project/llm-compressor#1637",
     "the mean of each embedding row is subtracted, though RMSNorm does not", CENTRED, ALL, LOGITS),
    ("stream_mean_subtracted", "microsoft/TransformerCompression, rotate.py",
     "means are subtracted from embeddings and writers alike", ALL_CENTRED, NORMAL, LOGITS),
    ("fixed_eps", "microsoft/TransformerCompression, RMSN", "the norms add 1e-5, the original's add 1e-6",
     FIXED_EPS, ALL, LOGITS),
    ("offset_gain_folded_as_stored", "vllm-project/llm-compressor, modeling/offset_norm.py",
     "gains stored as 1 + w are folded as w", OFFSET_FORGOTTEN, ("gemma",), LOGITS),
    ("offset_added_to_plain_gains", "bugs class B7: norm gain", "1 is added to gains that are stored as they are",
     OFFSET_INVENTED, ("llama",), LOGITS),
    ("tied_head_folded_in_place", "Tencent/AngelSlim#319; ModelCloud/GPTQModel#1550",
     "the final gain is folded into the tensor that head and embedding share", _tied_in_place, ("qwen3", "gemma"),
     ("equivalence", "streams")),
)  # fmt: skip
"""Name, issue, summary, replaced arithmetic, models, and the checks that find it."""


def _defects() -> tuple[Defect, ...]:
    return tuple(
        Defect(
            name=f"{name}_{which}", kind="ModelPair", issue=issue, summary=summary, killed_by=killed_by,
            plant=lambda seed, o=MODELS[which], s=steps: rotated_pair(seed, steps=s, **o), twin=twin(**MODELS[which]),
        )
        for name, issue, summary, steps, models, killed_by in MISTAKES
        for which in models
    )  # fmt: skip


DEFECTS = _defects()
"""`precision_scaling` names what is wrong with means, eps and offsets."""
