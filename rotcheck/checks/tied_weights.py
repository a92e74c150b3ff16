"""ROT205: the head of a rotated model no longer shares its weight with the embeddings."""

from __future__ import annotations

import copy

import torch

from rotcheck.checking import Broken, Measurement, Missing, check
from rotcheck.checks._models import left_alone
from rotcheck.outcome import Allowance, Distance
from rotcheck.subjects.pair import ModelPair
from rotcheck.subjects.running import cast, logit_error, logits, model_dtype
from rotcheck.subjects.sliced import SlicedModel
from rotcheck.witness import Witness


@check(code="ROT205", kinds=["ModelPair", "SlicedModel"], needs=["module"])
def tied_weights(subject: ModelPair | SlicedModel, witness: Witness) -> Measurement | Broken | Missing:
    """``tie_weights()``, which loading and resizing call, leaves the logits as they are.

    The final norm's gain goes into the head and nowhere else, so a tied head must be untied *and* the configuration
    must say so; otherwise the next ``tie_weights()`` undoes it. The rival is the model with head and embedding tied.

    Catches
    -------
    A head cloned while ``config.tie_word_embeddings`` stays true, a gain folded into a shared tensor.

    Cannot see
    ----------
    Whether the head is in the right basis (`equivalence`). Undecided for a model that is rightly tied: its head and
    embedding are equal, so tying changes nothing.

    References
    ----------
    facebookresearch/SpinQuant#13; ModelCloud/GPTQModel#1550; Tencent/AngelSlim#319.
    """
    model, batches = subject.module, subject.batches
    if left_alone(model) and model.config.tie_word_embeddings:
        return Missing(argument="an untied head", reason="the stream was left alone, so the head rightly stays tied")
    again = cast(copy.deepcopy(model), model_dtype(model))
    base = logits(again, batches, what=str(subject))
    again.tie_weights()
    after = logits(again, batches, what=f"{subject} after tie_weights()")
    head, embedding = again.get_output_embeddings(), again.get_input_embeddings()
    rivals = ()
    # Behind a project_out the head reads no stream and takes no gain: untied, it rightly stays equal to the embedding.
    untied = not getattr(model.config, "tie_word_embeddings", True)
    comparable = head is not None and head.weight.shape == embedding.weight.shape
    if comparable and not (untied and torch.equal(head.weight, embedding.weight)):
        head.weight = torch.nn.Parameter(embedding.weight.detach().clone())
        tied = logits(again, batches, what=f"{subject} with a tied head")
        rivals = (
            Distance(
                name="the logits of a head tied to the embedding",
                error=logit_error(after, tied),
                separation=logit_error(tied, base),
            ),
        )
    return Measurement(
        claim=Distance(name="the same logits after tie_weights()", error=logit_error(after, base)),
        rivals=rivals,
        allowed=Allowance(value=0.0, derivation="bit equality: tie_weights() must not touch an untied model"),
        verb="gives",
        witness=f"{len(base)} tokens",
        hint="untie before folding, and set config.tie_word_embeddings = False",
        needs="a model whose head differs from its embedding",
    )
