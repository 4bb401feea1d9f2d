"""Training batches: rows of running text and rows packed with conversations.

`Batches.make(step)` depends on the seed and the step alone, so that a run that was stopped goes on with the numbers it
would have seen, and so that several processes can prepare batches ahead.
"""

import concurrent.futures
import dataclasses
import multiprocessing
import random
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gptoss_jax.nano import corpus, dialogs
from gptoss_jax.nano.rendering import Codec

LEARNED = 0.6  # at most this share of a conversation row's tokens is the assistant's: the rest of a batch needs no logits


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
      text_share: share of rows with running text.
      dialog_weight: loss weight of an assistant token against a token of text.
      seed: of everything random.
    """

    texts: dict[str, np.ndarray]
    codec: Codec
    rows: int
    length: int
    text_share: float
    dialog_weight: float
    seed: int

    def make(self, step: int) -> Batch:
        """The batch of one step."""
        rng = random.Random(f"{self.seed} {step}")
        B, T = self.rows, self.length
        tokens = np.full((B, T + 1), self.codec.pad, np.int32)
        weights, segments = np.zeros((B, T + 1), np.float32), np.full((B, T + 1), -1, np.int32)
        text_rows = self.text_rows
        names = list(self.texts)
        order = rng.sample(names, len(names))
        for row in range(text_rows):
            ids = self.texts[order[row % len(names)]]
            at = rng.randrange(len(ids) - T)
            tokens[row], weights[row], segments[row] = ids[at : at + T + 1], 1, 0
        used, count = np.zeros(B, int), np.zeros(B, int)
        misses, room = 0, round(LEARNED * (B - text_rows) * T)
        while misses < 4 and text_rows < B:
            ids, loss = self.codec.training(dialogs.conversation(rng))
            fits = [row for row in range(text_rows, B) if used[row] + len(ids) <= T + 1]
            if not fits or sum(loss) > room:
                misses += 1
                continue
            room -= sum(loss)
            row, at = fits[0], used[fits[0]]
            tokens[row, at : at + len(ids)] = ids
            weights[row, at : at + len(ids)] = np.asarray(loss) * self.dialog_weight
            segments[row, at : at + len(ids)] = count[row]
            used[row] += len(ids)
            count[row] += 1
        # a position predicts the next token: it bears that token's weight, and its own segment
        weights = weights[:, 1:]
        wanted = np.argsort(weights.reshape(-1) == 0, kind="stable")[: text_rows * T + round(LEARNED * (B - text_rows) * T)]
        return Batch(tokens, weights, segments[:, :T], wanted.astype(np.int32))

    @property
    def text_rows(self) -> int:
        """Rows at the top that hold running text."""
        return round(self.rows * self.text_share)


def tokenize(folder: Path, codec: Codec) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    """Training tokens and held-out blocks of every domain."""
    train, held = {}, {}
    for name, text in corpus.read(folder).items():
        runs, held[name] = corpus.split(text)
        train[name] = np.concatenate([np.asarray(codec.encode(run), np.uint16) for run in runs])
    return train, held


_worker: Batches | None = None


def _start(batches: Batches) -> None:
    global _worker
    _worker = batches


def _make(step: int) -> Batch:
    assert _worker is not None
    return _worker.make(step)


def stream(batches: Batches, start: int, stop: int, workers: int) -> Iterator[Batch]:
    """Batches ``start .. stop - 1``, prepared ahead by `workers` processes (0: made in place)."""
    if not workers:
        yield from map(batches.make, range(start, stop))
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, context, _start, (batches,)) as pool:
        ahead: deque[concurrent.futures.Future[Batch]] = deque()
        for step in range(start, stop):
            while len(ahead) < 4 * workers and step + len(ahead) < stop:
                ahead.append(pool.submit(_make, step + len(ahead)))
            yield ahead.popleft().result()
