"""Training batches: rows of running text and rows packed with conversations.

`Batches.make(step)` depends on the seed and the step alone, so that a run that was stopped goes on with the numbers it
would have seen.
"""

import dataclasses
import random
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gptoss_jax.nano import corpus, dialogs
from gptoss_jax.nano.rendering import Codec

LEARNED = 0.6  # largest share of conversation tokens that the assistant writes: the others need no logits


class Batch(NamedTuple):
    """Packed rows.

    Attributes:
      tokens: int32 [B, T + 1].
      weights: float32 [B, T], loss weight of the token that follows each position.
      segments: int32 [B, T], conversation within its row, -1 for padding.
      wanted: int32 [N], positions of the flattened batch that bear a weight, filled up with some that bear none.
    """

    tokens: np.ndarray
    weights: np.ndarray
    segments: np.ndarray
    wanted: np.ndarray


@dataclasses.dataclass(frozen=True)
class Batches:
    """Where batches come from.

    Attributes:
      texts: name -> uint16 tokens of the domain's training text.
      codec: turns conversations into ids.
      rows: B.
      length: T.
      text_rows: rows at the top with running text.
      repeat_rows: rows after them that repeat a random passage.
      dialog_weight: loss weight of an assistant token against a token of text.
      seed: of everything random.
    """

    texts: dict[str, np.ndarray]
    codec: Codec
    rows: int
    length: int
    text_rows: int
    repeat_rows: int
    dialog_weight: float
    seed: int

    def make(self, step: int) -> Batch:
        """The batch of one step."""
        rng = random.Random(f"{self.seed} {step}")
        B, T, text_rows = self.rows, self.length, self.text_rows
        tokens = np.full((B, T + 1), self.codec.padding, np.int32)
        weights, segments = np.zeros((B, T + 1), np.float32), np.full((B, T + 1), -1, np.int32)
        names = list(self.texts)
        order = rng.sample(names, len(names))
        for row in range(text_rows):
            text = self.texts[order[row % len(names)]]
            start = rng.randrange(len(text) - T)
            tokens[row], weights[row], segments[row] = text[start : start + T + 1], 1, 0
        drilled = text_rows + self.repeat_rows
        for row in range(text_rows, drilled):
            passage = [rng.randrange(len(self.codec.tokenizer.ranks)) for _ in range(rng.randint(8, T // 4))]
            tokens[row] = np.resize(passage, T + 1)
            weights[row, len(passage) :], segments[row] = 1, 0  # the first time round nothing can predict it
        used, count = np.zeros(B, int), np.zeros(B, int)
        misses, room = 0, round(LEARNED * (B - drilled) * T)
        while misses < 4 and drilled < B:
            ids, loss = self.codec.training(dialogs.conversation(rng))
            fits = [row for row in range(drilled, B) if used[row] + len(ids) <= T + 1]
            if not fits or sum(loss) > room:
                misses += 1
                continue
            room -= sum(loss)
            row, at = fits[0], used[fits[0]]
            place = (row, slice(at, at + len(ids)))
            tokens[place] = ids
            weights[place] = np.asarray(loss) * self.dialog_weight
            segments[place] = count[row]
            used[row] += len(ids)
            count[row] += 1
        # a position predicts the next token: it bears that token's weight, and its own segment
        weights = weights[:, 1:]
        most = drilled * T + round(LEARNED * (B - drilled) * T)
        wanted = np.argsort(weights.reshape(-1) == 0, kind="stable")[:most]
        return Batch(tokens, weights, segments[:, :T], wanted.astype(np.int32))


def tokenize(folder: Path, codec: Codec) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    """Training tokens and held-out blocks of every domain."""
    train, held = {}, {}
    for name, text in corpus.read(folder).items():
        runs, held[name] = corpus.split(text)
        train[name] = np.concatenate([np.asarray(codec.encode(run), np.uint16) for run in runs])
    return train, held
