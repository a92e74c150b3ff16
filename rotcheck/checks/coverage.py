"""ROT501: every head of every layer has a rotation for its keys and one for its values, as wide as they are."""

from __future__ import annotations

from torch import Tensor

from rotcheck.checking import Broken, Measurement, Missing, check
from rotcheck.checks._caches import Stored, changed, fed, short, stored_by
from rotcheck.outcome import Allowance, Distance
from rotcheck.subjects.cache import KINDS, CacheRotation, Head
from rotcheck.witness import Witness

COUNTED = Allowance(value=0.0, derivation="places are counted")


@check(code="ROT501", kinds=["CacheRotation"], needs=["model", "inputs"])
def coverage(subject: CacheRotation, witness: Witness) -> list[Measurement] | Broken | Missing:
    """The places (layer, KV head, keys or values) that the subject declares are those that the model's cache has.

    The model runs once with a recording cache, and the places and widths are read from the tensors that it stores. The
    error is the share of places on one side only. With ``cache``, each declared place must also come back changed by
    at least one bit when the cache is handed those tensors: a place that comes back as it was is not compressed.

    Catches
    -------
    Layers or heads that are silently passed over, values forgotten where keys are rotated, query heads counted for KV
    heads, a width that was derived (``hidden_size / heads``) and not read.

    Cannot see
    ----------
    Whether the right rotation stands at a place: that is `side`. Layers that are meant to stay as they are: do not
    declare rotations for them, and it fails, saying which ones; expect that failure by name.

    References
    ----------
    Dynamis-Labs/spectralquant (``head_dim = hidden // heads`` drops the keys of models with another head_dim); bugs of
    class B10 (head layout); spiritbuun/buun-llama-cpp#12 (head sizes that differ between layers).
    """
    if not subject.heads:
        return Missing(argument="heads")
    stored = stored_by(subject, short(subject.batches[0]))
    wanted = {
        Head(layer=layer, head=head, kind=kind): tensor
        for layer, pair in enumerate(stored)
        for kind, tensor in zip(KINDS, pair, strict=True)
        for head in range(tensor.shape[1])
    }
    for place in sorted(wanted.keys() & subject.heads.keys()):
        own, width = subject.heads[place].width, wanted[place].shape[3]
        if own != width:
            return Broken(
                what=f"declares a rotation of width {own} for vectors of width {width} at {place}",
                place=str(place),
                hint="read the width from the projection or from the cache; hidden_size / heads is another number",
            )
    found = [_declared(subject, wanted, len(stored))]
    if subject.cache is not None:
        found.append(_compressed(subject, stored))
    return found


def _declared(subject: CacheRotation, wanted: dict[Head, Tensor], layers: int) -> Measurement:
    from rotcheck.spectral.recorder import text_config  # brings transformers with it

    found, right = set(subject.heads), set(wanted)
    queries = getattr(text_config(subject.model.config), "num_attention_heads", 0)
    candidates = {
        "the keys alone": {place for place in right if place.kind == "keys"},
        "the first head of each layer": {place for place in right if place.head == 0},
        "the first layer alone": {place for place in right if place.layer == 0},
        f"{queries} query heads in each layer": {
            place._replace(head=head) for place in right if place.head == 0 for head in range(queries)
        },
    }
    odd, extra = sorted(found ^ right), len(found - right)
    rivals = [
        Distance(name=name, error=len(found ^ places) / len(right), separation=len(places ^ right) / len(right))
        for name, places in candidates.items()
        if places != right
    ]
    if odd:  # fitted, to give a failure its size
        name = f"{len(found & right)} of {len(right)} heads" + (f", and {extra} that are not stored" if extra else "")
        rivals.append(Distance(name=name, error=0.0, separation=len(odd) / len(right)))
    return Measurement(
        claim=Distance(name=f"all {len(right)} heads that are stored", error=len(odd) / len(right)),
        rivals=tuple(rivals),
        allowed=COUNTED,
        verb="declares rotations for",
        place=_listed(odd),
        witness=f"{layers} layers of {type(subject.model).__name__}",
        hint="go through all layers, KV heads, and keys and values, or say by name what is left out",
    )


def _compressed(subject: CacheRotation, stored: Stored) -> Measurement:
    back = fed(subject.cache(), stored, [stored[0][0].shape[2]], what=str(subject))  # type: ignore[misc]
    kept = []
    for place in sorted(subject.heads):
        if place.layer < len(stored):
            i = KINDS.index(place.kind)
            one, two = back[place.layer][i], stored[place.layer][i]
            if place.head < two.shape[1] and not changed(one, two, 0.0)[:, place.head].any():
                kept.append(place)
    total, share = len(subject.heads), len(kept) / len(subject.heads)
    seen = Distance(name=f"compressed vectors in {total - len(kept)} of {total} heads", error=0.0, separation=share)
    none = Distance(name=f"compressed vectors in 0 of {total} heads", error=1 - share, separation=1.0)
    return Measurement(
        claim=Distance(name=f"compressed vectors in all {total} heads that it declares", error=share),
        rivals=(seen if kept else none,),
        allowed=COUNTED,
        verb="gives back",
        place=_listed(kept),
        witness=f"keys and values of {stored[0][0].shape[2]} tokens, handed to the cache and given back",
        hint="these come back bit for bit as they were given: look at which layers get the compressing cache",
    )


def _listed(places: list[Head]) -> str:
    more = f" and {len(places) - 3} more" if len(places) > 3 else ""
    return ", ".join(map(str, places[:3])) + more
