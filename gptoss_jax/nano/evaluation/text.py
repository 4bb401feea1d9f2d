"""Bits per byte of held-out text, and which experts served it."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gptoss_jax.config import ModelConfig
from gptoss_jax.model import GptOss, Record
from gptoss_jax.nano import network
from gptoss_jax.tokenizer import Tokenizer

WINDOW = 256  # tokens in view; every token but the first half of a document is predicted from at least half of it
ROWS = 16  # windows at a time


@dataclasses.dataclass(frozen=True)
class Reading:
    """What a model made of one kind of text.

    Attributes:
      bits: it took to predict the text, first tokens of documents included as bytes would be: 8 bits a byte.
      size: bytes.
      tokens: int32 [n], the scored tokens.
      experts: int32 [n, L, X], that served them.
      document: int32 [n], which document each token belongs to.
    """

    bits: float
    size: int
    tokens: np.ndarray
    experts: np.ndarray
    document: np.ndarray

    @property
    def bits_per_byte(self) -> float:
        """The measure that does not depend on the vocabulary."""
        return self.bits / self.size


@functools.partial(jax.jit, static_argnames="dispatch")
def _run(model: GptOss, tokens_BT: Any, counts_B: Any, dispatch: Any) -> tuple[Any, Any]:
    output = model.run(tokens_BT, counts_B, record=Record(routing=True), dispatch=dispatch)
    losses = network.cross_entropy(model.unembedding(output.hidden[:, :-1]), tokens_BT[:, 1:])
    assert output.routing is not None
    return losses, output.routing.experts


def windows(ids: Sequence[int], size: int) -> list[tuple[int, int, int]]:
    """(start, first scored, end) of overlapping windows that together score every token but the first, once each."""
    out, scored = [], 1
    while scored < len(ids):
        start = max(0, scored - size // 2)
        end = min(start + size, len(ids))
        out.append((start, scored, end))
        scored = end
    return out


def read(
    model: GptOss, tokenizer: Tokenizer, documents: Sequence[str], *, window: int = WINDOW, dispatch: Any = None
) -> Reading:
    """Score documents one by one, in overlapping windows.

    Args:
      model: the model.
      tokenizer: its tokenizer.
      documents: pieces of text; nothing is carried from one to the next.
      window: tokens in view.
      dispatch: see `GptOss.run`.
    """
    encoded = [tokenizer.encode_ordinary(text) for text in documents]
    work = [(i, *span) for i, ids in enumerate(encoded) for span in windows(ids, window)]
    bits, tokens, experts, owner = 0.0, [], [], []
    for at in range(0, len(work), ROWS):
        rows = work[at : at + ROWS]
        batch = np.zeros((ROWS, window), np.int32)
        counts = np.zeros(ROWS, np.int32)
        for b, (i, start, _, end) in enumerate(rows):
            counts[b] = end - start
            batch[b, : counts[b]] = encoded[i][start:end]
        losses, chosen = _run(model, jnp.asarray(batch), jnp.asarray(counts), dispatch)
        losses, chosen = np.asarray(losses, np.float64), np.asarray(chosen)
        for b, (i, start, first, end) in enumerate(rows):
            bits += losses[b, first - start - 1 : end - start - 1].sum() / np.log(2)
            span = slice(first - start if first > 1 else 0, end - start)
            tokens.append(batch[b, span])
            experts.append(chosen[:, b, span].transpose(1, 0, 2))
            owner.append(np.full(len(tokens[-1]), i, np.int32))
    bits += 8 * sum(len(tokenizer.token_bytes(ids[0])) for ids in encoded if ids)
    size = sum(len(text.encode()) for text in documents)
    return Reading(bits, size, np.concatenate(tokens), np.concatenate(experts), np.concatenate(owner))


def shortened(documents: Sequence[str], size: int | None) -> list[str]:
    """Documents spread evenly over the list, until they hold `size` bytes; all of them if None."""
    if size is None:
        return list(documents)
    lengths = [len(text.encode()) for text in documents]
    count = max(1, min(len(documents), round(size / max(float(np.mean(lengths)), 1))))
    return [documents[i] for i in np.linspace(0, len(documents) - 1, count).round().astype(int)]


class FloatExperts:
    """A `dispatch` that multiplies with float weights instead of the packed ones: the model before the 4-bit phase."""

    def __init__(self, params: Mapping[str, Any], config: ModelConfig):
        self._config = config
        self._params = {name: jnp.asarray(value) for name, value in params.items() if ".experts." in name}

    def __call__(self, x_TD: Any, routing: Any, _: Any, layer: Any) -> Any:
        own = {name: value[layer] for name, value in self._params.items()}
        return network.experts_in_tiles(own, x_TD, routing, self._config, 64)
