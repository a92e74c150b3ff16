"""What a calibrated cache must fit: the sizes and the kind of the model that it was calibrated on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rotcheck.errors import RotcheckError
from rotcheck.spectral.recorder import layer_count, text_config

HEAD_FIELDS = ("num_attention_heads", "num_key_value_heads", "head_dim")


class Bank(Protocol):
    """Anything with heads and a width."""

    @property
    def heads(self) -> int: ...

    @property
    def width(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Model type, sizes of the stream and the vocabulary, and (heads, width) of keys and values in each layer.

    ``declared`` is what the configuration itself says about heads, field by field. It is compared with what another
    configuration says under the same name, and never with the heads that were seen: a layer may store other ones, as
    latent attention does.
    """

    model_type: str
    hidden_size: int
    vocab_size: int
    keys: tuple[tuple[int, int], ...]
    values: tuple[tuple[int, int], ...]
    declared: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        heads, width = self.keys[0]
        return f"{self.model_type}, {len(self.keys)} layers, {heads} KV heads of {width}"

    def check(self, config: Any) -> None:
        """Raise unless a configuration can belong to the same model.

        Raises
        ------
        RotcheckError
            That names what differs.
        """
        own = text_config(config)
        pairs = [
            ("model type", self.model_type, own.model_type),
            ("layers", len(self.keys), layer_count(config)),
            ("hidden size", self.hidden_size, own.hidden_size),
            ("vocabulary", self.vocab_size, own.vocab_size),
        ]
        theirs_declared = dict(declared(config))
        pairs += [(name, mine, theirs_declared[name]) for name, mine in self.declared if name in theirs_declared]
        for what, mine, theirs in pairs:
            if mine != theirs:
                raise RotcheckError(
                    f"this cache was calibrated on another model: {what} {mine}, this model has {theirs}; "
                    "calibrate again"
                )


def identity(config: Any, keys: Sequence[Bank], values: Sequence[Bank]) -> Identity:
    """The identity of a model with this configuration and these heads."""
    own = text_config(config)
    return Identity(
        model_type=own.model_type,
        hidden_size=own.hidden_size,
        vocab_size=own.vocab_size,
        keys=tuple((bank.heads, bank.width) for bank in keys),
        values=tuple((bank.heads, bank.width) for bank in values),
        declared=declared(config),
    )


def declared(config: Any) -> tuple[tuple[str, int], ...]:
    """Fields of a configuration that give numbers of heads or their width, where it has them."""
    own = text_config(config)
    found = ((name, getattr(own, name, None)) for name in HEAD_FIELDS)
    return tuple((name, value) for name, value in found if isinstance(value, int))
