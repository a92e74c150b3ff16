"""ROT207: a saved model, loaded again, is the same model."""

from __future__ import annotations

import copy
import tempfile

from rotcheck.checking import Broken, Measurement, check
from rotcheck.models.loading import quiet
from rotcheck.outcome import Allowance, Distance
from rotcheck.subjects.calling import call
from rotcheck.subjects.pair import ModelPair
from rotcheck.subjects.running import cast, logit_error, logits, model_dtype
from rotcheck.subjects.sliced import SlicedModel
from rotcheck.tolerance import dtype_name
from rotcheck.witness import Witness


@check(code="ROT207", kinds=["ModelPair", "SlicedModel"], needs=["module"])
def reload(subject: ModelPair | SlicedModel, witness: Witness) -> Measurement | Broken:
    """``save_pretrained`` and ``from_pretrained`` of the model's own class give back the same bits.

    The logits are compared bit for bit; the dtype and eval mode must survive too. Loading a model whose files lack
    tensors does not raise in transformers: it fills them with random numbers, which shows in the logits, and the
    missing names are in the hint.

    Catches
    -------
    Online rotations and shortcuts that are not saved, a head tied again on loading, a dtype that changes, tensors
    that are silently made anew.

    Cannot see
    ----------
    What another process lacks, such as a class that only this one has registered (the test suite loads in one).

    References
    ----------
    ModelCloud/GPTQModel#2354 (perplexity 48,564,640 after reload); microsoft/TransformerCompression#73.
    """
    model = subject.module
    # Both are copied into fresh memory: a mapped file is not aligned as it is, and matrix products may round otherwise.
    before = logits(cast(copy.deepcopy(model), model_dtype(model)), subject.batches, what=str(subject))
    with tempfile.TemporaryDirectory() as directory, quiet():
        call(model.save_pretrained, directory, what=f"save_pretrained of {subject}")
        loaded, info = call(
            lambda: type(model).from_pretrained(directory, dtype="auto", output_loading_info=True),
            what=f"from_pretrained of {subject}",
        )
    if model_dtype(loaded) is not model_dtype(model):
        was, now = dtype_name(model_dtype(model)), dtype_name(model_dtype(loaded))
        return Broken(what=f"comes back in another dtype: saved {was}, loaded {now}")
    if loaded.training:
        return Broken(what="comes back in train mode: dropout would be active")
    loaded = copy.deepcopy(loaded).to(next(model.parameters()).device)
    after = logits(cast(loaded, model_dtype(model)), subject.batches, what=f"{subject}, reloaded")
    lost = sorted(map(str, [*info.get("missing_keys", ()), *info.get("unexpected_keys", ())]))
    constant = before.mean(0, keepdim=True).expand_as(before)
    return Measurement(
        claim=Distance(name="the same logits after a reload", error=logit_error(after, before)),
        rivals=(
            Distance(
                name="the same logits for every token",
                error=logit_error(after, constant),
                separation=logit_error(constant, before),
            ),
        ),
        allowed=Allowance(value=0.0, derivation="bit equality: the same numbers are read back"),
        verb="gives",
        witness=f"{len(before)} tokens, saved and loaded in a temporary directory",
        hint=f"not restored: {', '.join(lost[:3])}" if lost else "compare the two state dictionaries tensor by tensor",
        facts=(("tensors not restored", float(len(lost))),),
    )
