"""The rotations of a KV cache under test: one per layer, KV head, and keys or values, and the cache that holds them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from numbers import Integral
from typing import Any, ClassVar, NamedTuple

from rotcheck.errors import RotcheckError
from rotcheck.subjects.calling import call, describe
from rotcheck.subjects.rotation import Rotation
from rotcheck.subjects.running import Batch, as_batches, is_transformer

KINDS = ("keys", "values")


class Head(NamedTuple):
    """Where a rotation belongs."""

    layer: int
    head: int
    kind: str

    def __str__(self) -> str:
        return f"layer {self.layer} head {self.head} {self.kind}"


@dataclass(frozen=True, eq=False, repr=False)
class CacheRotation:
    """A KV cache that rotates what it stores.

    Every check on a `Rotation` is run on each of ``heads``, with the bases of the neighbouring heads, layers, and of
    keys for values, as rivals. The other checks need the model and the cache themselves.

    Parameters
    ----------
    heads : mapping of Head to Rotation
        One entry per (layer, KV head, "keys" or "values"); plain tuples will do.
    queries : callable, optional
        ``queries(x, layer, query_head) -> y`` where queries are rotated to meet rotated keys: x (n, d).
    query_heads : int, optional
        Number of query heads, with ``queries``: those of one group share a KV head, so ``heads`` must hold all KV heads
        of a layer.
    rotary : int
        Leading coordinates that RoPE turns where it leaves the others alone (partial rotary); they must not mix.
    model : PreTrainedModel, optional
        A transformers decoder that the cache is used with.
    inputs : LongTensor (B, T), mapping with ``input_ids`` and ``attention_mask``, or a sequence, with ``model``
        More than one token per row, padded rows welcome.
    cache : callable, optional
        Makes a new, empty cache of the kind under test; it is handed to the model.
    lossless : callable, optional
        Makes one that rotates as ``cache`` does and stores what it rotates without loss.
    coarse : callable, optional
        Makes one with the fewest bits that the code knows: it must lose more.
    bytes_per_token : int, optional
        What the code says one more token needs, over all layers and heads, side information included.
    reload : callable, optional
        Saves what the cache needs, loads it, and gives a function like ``cache``.
    name : str, optional

    Raises
    ------
    RotcheckError
        For keys that are not heads, or name one twice, values that are not rotations, a cache without a model, inputs
        that are not token ids, or numbers that cannot be.
    """

    kind: ClassVar[str] = "CacheRotation"
    part_argument: ClassVar[str] = "heads"

    heads: Mapping[Head, Rotation] = field(default_factory=dict)
    _: KW_ONLY
    queries: Callable[[Any, int, int], Any] | None = None
    query_heads: int | None = None
    rotary: int = 0
    model: Any = None
    inputs: Any = None
    cache: Callable[[], Any] | None = None
    lossless: Callable[[], Any] | None = None
    coarse: Callable[[], Any] | None = None
    bytes_per_token: int | None = None
    reload: Callable[[], Callable[[], Any]] | None = None
    name: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "heads", _heads(self.heads))
        if not self.heads and self.cache is None:
            raise RotcheckError("CacheRotation needs heads={Head(layer, head, kind): Rotation}, or model= and cache=")
        if (self.queries is None) != (self.query_heads is None):
            raise RotcheckError("CacheRotation(queries=...) needs query_heads=..., and the other way round")
        for name in ("queries", "cache", "lossless", "coarse", "reload"):
            if getattr(self, name) is not None and not callable(getattr(self, name)):
                cure = "a function of x, layer and head" if name == "queries" else "lambda: MyCache(...)"
                raise RotcheckError(f"CacheRotation({name}={getattr(self, name)!r:.60}) is not callable: pass {cure}")
        for name in ("cache", "lossless", "coarse", "reload"):
            if getattr(self, name) is not None and (self.model is None or self.inputs is None):
                raise RotcheckError(f"CacheRotation({name}=...) needs model=... and inputs=... to run it with")
        self._check_numbers()
        if self.model is not None and not is_transformer(self.model):
            raise RotcheckError(f"CacheRotation(model={type(self.model).__name__}) is not a transformers model")
        if self.inputs is not None:
            object.__setattr__(self, "inputs", as_batches(self.inputs))

    def _check_numbers(self) -> None:
        for name, least in (("query_heads", 1), ("bytes_per_token", 1), ("rotary", 0)):
            value = getattr(self, name)
            if value is not None and not (_whole(value) and value >= least):
                raise RotcheckError(f"CacheRotation({name}={value!r:.60}): pass a whole number, {least} or more")
        widths = [part.width for place, part in self.heads.items() if place.kind == "keys"]
        if self.rotary and self.rotary >= min(widths, default=self.rotary + 1):
            raise RotcheckError(
                f"CacheRotation(rotary={self.rotary}) is not a part of keys of width {min(widths)}: leave it out where "
                "RoPE turns the whole head"
            )

    @classmethod
    def from_lookup(
        cls,
        rotate: Callable[..., Any],
        bases: Mapping[Any, Any],
        *,
        unrotate: Callable[..., Any] | None = None,
        declared: Mapping[Any, Mapping[str, Any]] | None = None,
        **options: Any,
    ) -> CacheRotation:
        """For a class that looks the basis up: ``rotate(x, layer, head, kind)``, or ``rotate(x, layer, head)``.

        Parameters
        ----------
        rotate : callable
            Called with x (n, d) and as many of layer, head and kind as the keys of ``bases`` have.
        bases : mapping of (layer, head) or (layer, head, kind) to basis
            Two numbers mean keys.
        unrotate : callable, optional
            Called in the same way.
        declared : mapping, optional
            More parameters of `Rotation` for single heads: ``{(0, 1): {"covariance": C}}``.
        **options
            Of `CacheRotation`.

        Examples
        --------
        >>> CacheRotation.from_lookup(rot.rotate, {(l, h): V[l][h] for l in range(4) for h in range(2)})
        """
        known = declared or {}
        if unknown := sorted(set(known) - set(bases), key=str):
            raise RotcheckError(f"from_lookup(declared=...) names {unknown[0]!r:.60}, which has no basis")
        heads = {}
        for key, basis in bases.items():
            _head(key)
            back = None if unrotate is None else _with(unrotate, key)
            heads[key] = Rotation(_with(rotate, key), basis=basis, unrotate=back, **known.get(key, {}))
        return cls(heads, **options)

    @classmethod
    def from_hf(cls, model: Any, cache: Callable[[], Any], *, inputs: Any, **options: Any) -> CacheRotation:
        """For a transformers cache: ``from_hf(model, lambda: MyCache(...), inputs=ids)``.

        Of a `rotcheck.spectral.SpectralCache` the rotations, their bases and the bytes are read from the cache itself,
        and what is declared in ``options`` replaces them. Of any other cache they are what ``options`` says.

        Raises
        ------
        RotcheckError
            As for the class, and when no cache can be made.
        """
        from rotcheck.spectral.cache import SpectralCache

        if not callable(cache):
            raise RotcheckError(f"from_hf(cache={type(cache).__name__}) is one cache: pass lambda: MyCache(...)")
        found = call(cache, what="cache")
        if isinstance(found, SpectralCache):
            from rotcheck.subjects.spectral import declared

            options = declared(found.codec, model) | options
        options = {"name": type(found).__name__} | options
        return cls(options.pop("heads", {}), model=model, cache=cache, inputs=inputs, **options)

    @property
    def batches(self) -> tuple[Batch, ...]:
        return self.inputs or ()

    @property
    def parts(self) -> dict[str, Rotation]:
        """Every head's rotation by its place, with the bases around it as neighbours."""
        return {str(place): self._with_neighbours(place, part) for place, part in self.heads.items()}

    def _with_neighbours(self, place: Head, part: Rotation) -> Rotation:
        if part.neighbours or part.basis is None:
            return part
        near = {
            str(other): found.basis
            for other, found in self.heads.items()
            if other != place and _near(place, other) and found.basis is not None and found.width == part.width
        }
        return replace(part, neighbours=near)

    def __str__(self) -> str:
        if self.name:
            return self.name
        return f"cache of {len(self.heads)} rotations" if self.heads else describe(self.cache)

    def __repr__(self) -> str:
        return f"CacheRotation({self})"


def _near(place: Head, other: Head) -> bool:
    """All heads of the same layer, and the same head and kind one layer before and behind: what a lookup confuses."""
    if place.layer == other.layer:
        return True
    return abs(place.layer - other.layer) == 1 and (place.head, place.kind) == (other.head, other.kind)


def _heads(given: Mapping[Any, Any]) -> dict[Head, Rotation]:
    if not isinstance(given, Mapping):
        raise RotcheckError(f"CacheRotation(heads={type(given).__name__}): pass a mapping of Head to Rotation")
    places = [_head(key) for key in given]
    for place, times in Counter(places).items():
        if times > 1:
            raise RotcheckError(f"CacheRotation: {times} keys mean {place}: a head has one rotation")
    return dict(zip(places, (_rotation(key, part) for key, part in given.items()), strict=True))


def _head(key: Any) -> Head:
    if not isinstance(key, tuple) or len(key) not in (2, 3):
        raise RotcheckError(f"a head is (layer, head, 'keys' or 'values'), not {key!r:.60}")
    layer, head, kind = (*key, "keys")[:3]
    if not all(_whole(n) and n >= 0 for n in (layer, head)) or kind not in KINDS:
        raise RotcheckError(f"a head is (layer, head, 'keys' or 'values') with numbers from 0, not {key!r:.60}")
    return Head(layer=int(layer), head=int(head), kind=kind)


def _whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _rotation(key: Any, part: Any) -> Rotation:
    if not isinstance(part, Rotation):
        raise RotcheckError(f"CacheRotation: {key!r:.60} is a {type(part).__name__}: make a rotcheck.Rotation of it")
    return part


def _with(function: Callable[..., Any], place: tuple[Any, ...]) -> Callable[[Any], Any]:
    return lambda x: function(x, *place)
