"""ROT209: the compiled model is the model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rotcheck.checking import Broken, Measurement, check
from rotcheck.checks._models import finite, model_allowance
from rotcheck.errors import RotcheckError, SubjectError
from rotcheck.outcome import Distance
from rotcheck.subjects.calling import call
from rotcheck.subjects.pair import ModelPair
from rotcheck.subjects.running import Batch, cast, logit_error, logits, model_dtype
from rotcheck.tolerance import dtype_name
from rotcheck.witness import Witness


@check(code="ROT209", kinds=["ModelPair"], needs=["module", "compiler"])
def compiled(subject: ModelPair, witness: Witness) -> list[Measurement] | Broken:
    """``torch.compile(after)`` gives the logits of ``after``, for each input its own, and writes to none.

    The model is compiled in one graph where it can be, and with breaks where it cannot (counted among the facts), with
    the backend that ``ModelPair(compiler=...)`` names: ``"aot_eager"`` traces and functionalises without generating
    code, ``"inductor"`` generates it. Two inputs of one shape are run; the rival is the answer to the first, for both.
    The compiler's state is reset before and after.

    Catches
    -------
    A rotation that is skipped, or baked in as a constant, when the model is traced; an output that shares memory with
    the input; token ids that are written to.

    Cannot see
    ----------
    Other shapes, CUDA graphs, other exporters.

    References
    ----------
    vllm-project/vllm#43462 (perplexity 1.4e6 compiled, 6.84 eager: an output aliases its input),
    NVIDIA/Model-Optimizer#1424 (rotated activations exported as constants).
    """
    dtype, compiler = model_dtype(subject.module), _known(subject.compiler)
    model = copy.deepcopy(cast(subject.module, dtype))
    first = subject.batches[0]
    mask, ids = first["attention_mask"], first["input_ids"]
    second = {"input_ids": torch.where(mask.bool(), ids.flip(0).flip(1), ids), "attention_mask": mask}
    eager = [finite(logits(model, [batch], what=str(subject)), what=str(subject)) for batch in (first, second)]
    allowed = [
        model_allowance(subject.module, [batch], dtype, logits(cast(model, torch.float64), [batch], what=str(subject)))
        for batch in (first, second)
    ]
    what = f"{subject} compiled with {compiler}"
    torch.compiler.reset()
    try:
        run, whole = _compile(model, compiler, first, what)
        actual, changed = [], False
        for batch in (first, second):
            fed = {name: tensor.clone() for name, tensor in batch.items()}
            answer = call(run, fed, what=what)
            changed |= any(not torch.equal(fed[name], batch[name]) for name in batch)
            actual.append(answer.detach().to("cpu", torch.float64)[mask.bool()])
    finally:
        torch.compiler.reset()
    if changed:
        return Broken(what="writes to its token ids or mask when it is compiled", hint="clone what a kernel writes to")
    facts = (("in one graph", float(whole)),)
    return [
        Measurement(
            claim=Distance(name="the logits of the model as it is", error=logit_error(got, right)),
            rivals=(_rival(eager, actual, index),),
            allowed=allowance,
            verb="gives when compiled",
            place=f"{compiler}, {('first', 'second')[index]} input",
            witness=f"{len(right)} tokens, {dtype_name(dtype)}, {compiler}",
            hint="look for what is computed while tracing, and for outputs that share memory with inputs",
            needs="inputs on which the logits differ",
            facts=facts,
        )
        for index, (got, right, allowance) in enumerate(zip(actual, eager, allowed, strict=True))
    ]


def _known(compiler: str | None) -> str:
    backends = sorted({*torch.compiler.list_backends(exclude_tags=()), "inductor"})
    if compiler not in backends:
        raise RotcheckError(f"ModelPair(compiler={compiler!r}) is no backend of torch.compile: {', '.join(backends)}")
    return compiler


def _compile(model: Any, compiler: str, batch: Batch, what: str) -> tuple[Callable[[Batch], Tensor], bool]:
    """The compiled model as a function of a batch, and whether it is one graph."""

    def compile_in(one: bool) -> Callable[[Batch], Tensor]:
        traced = torch.compile(model, backend=compiler, fullgraph=one, dynamic=False)
        run = lambda fed: traced(**fed, use_cache=False).logits  # noqa: E731 - it closes over what was compiled
        call(run, {name: tensor.clone() for name, tensor in batch.items()}, what=what)
        return run

    try:
        return compile_in(True), True
    except SubjectError:  # control flow that depends on data (a loop over experts) cuts the graph, and is no mistake
        torch.compiler.reset()
        return compile_in(False), False


def _rival(eager: list[Tensor], actual: list[Tensor], index: int) -> Distance:
    other = eager[1 - index]
    name = "the logits of the first input, whatever the input" if index else "the logits of another input"
    return Distance(name=name, error=logit_error(actual[index], other), separation=logit_error(other, eager[index]))
