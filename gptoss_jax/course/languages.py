"""Three small languages whose entropy is known: what the model of lesson 16 learns.

Each is a Markov chain over its own words and some that all languages share. The words stand in a circle, and the next
one is found a few steps further: all words are equally frequent, and every row of the table has the same entropy.
"""

import dataclasses

import numpy as np

CHANCES, HOPS = (0.7, 0.2, 0.1), (1, 3, 7)


@dataclasses.dataclass(frozen=True, eq=False)
class Languages:
    """Languages that differ in their private words and in what follows the shared ones.

    Attributes:
      shared: words 0 .. shared - 1 belong to all languages.
      circles: int [languages, words of one], the order in which the words of a language stand.
    """

    shared: int
    circles: np.ndarray

    @classmethod
    def draw(cls, seed: int, languages: int = 3, shared: int = 8, private: int = 4) -> "Languages":
        """Languages with random circles; private words are numbered language by language, after the shared ones."""
        rng = np.random.default_rng(seed)
        starts = shared + private * np.arange(languages)
        return cls(shared, np.stack([rng.permutation(np.r_[:shared, s : s + private]) for s in starts]))

    def __len__(self) -> int:
        return len(self.circles)

    @property
    def vocab_size(self) -> int:
        """Words of all languages together."""
        return int(self.circles.max()) + 1

    @property
    def follow(self) -> np.ndarray:
        """int [languages, V, 3]: what may follow a word, with the probabilities `CHANCES`; zeros for foreign words."""
        table = np.zeros((len(self), self.vocab_size, len(HOPS)), int)
        for d, circle in enumerate(self.circles):
            table[d, circle] = np.stack([np.roll(circle, -hop) for hop in HOPS], axis=1)
        return table

    @property
    def rule(self) -> np.ndarray:
        """float64 [languages, V, V]: probability of the next word (last axis) after a word; zeros for foreign words."""
        table = np.zeros((len(self), self.vocab_size, self.vocab_size))
        for d, circle in enumerate(self.circles):
            table[d, circle[:, None], self.follow[d, circle]] = CHANCES
        return table

    def sample(self, rng: np.random.Generator, rows: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows of text, each in one language: (int [rows] language, int32 [rows, length] words)."""
        language = rng.integers(len(self), size=rows)
        text, follow, bounds = np.empty((rows, length), np.int32), self.follow, np.cumsum(CHANCES)[:-1]
        text[:, 0] = self.circles[language, rng.integers(self.circles.shape[1], size=rows)]
        for t in range(1, length):
            text[:, t] = follow[language, text[:, t - 1], np.searchsorted(bounds, rng.random(rows), side="right")]
        return language, text

    def ideal_losses(self, text: np.ndarray) -> np.ndarray:
        """Losses of a reader who knows the rules and must find out the language: no model expects to do better.

        Args:
          text: int [rows, length].

        Returns:
          float64 [rows, length - 1], minus the log probability of each word after the first, in nats.
        """
        known = np.stack([np.isin(text[:, :1], circle) for circle in self.circles])
        with np.errstate(divide="ignore"):
            steps = np.log(self.rule[:, text[:, :-1], text[:, 1:]])
            logs = np.concatenate([np.log(known / self.circles.shape[1]), steps], axis=2)
        return -np.diff(np.logaddexp.reduce(np.cumsum(logs, axis=2)), axis=1)
