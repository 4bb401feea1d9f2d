"""A measured number never travels alone: its counts, the baseline of chance, and how far another sample would stray."""

import dataclasses
from collections.abc import Callable

import numpy as np

from gptoss_jax.routing.metrics.inputs import MetricError

LEVEL = (2.5, 97.5)  # percentiles of a 95 % interval


@dataclasses.dataclass(frozen=True, eq=False)
class Measure:
    """A metric and what is needed to believe it.

    Attributes:
      value: the metric.
      count: how many tokens stand behind each entry (broadcasts against `value`).
      baseline: what the metric gives where there is nothing to find: its mean over shuffled labels, or the closed form
        for random sets. None where the metric has none or shuffling was switched off.
      baseline_range: [2, ...], the central 95 % of the shuffles.
      interval: [2, ...], bootstrap 95 % interval of `value`. Plug-in information is biased upward, and resampling adds
        the same bias once more; the replicates are therefore centered on `value`. Compare it with `baseline_range`.
      names: the labels along the axis that has them.
    """

    value: np.ndarray
    count: np.ndarray
    baseline: np.ndarray | None = None
    baseline_range: np.ndarray | None = None
    interval: np.ndarray | None = None
    names: tuple = ()

    @property
    def excess(self) -> np.ndarray:
        """`value` minus `baseline`: for information, the estimate with its bias taken off."""
        if self.baseline is None:
            raise MetricError("no baseline was computed; pass resamples > 0")
        return self.value - self.baseline


def shuffle(codes: np.ndarray, groups: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """Deal the labels out anew: among tokens, or among whole groups, whose tokens share one label."""
    if groups is None:
        return rng.permutation(codes)
    first, number = np.unique(groups, return_index=True, return_inverse=True)[1:]
    if not np.array_equal(codes[first][number], codes):
        raise MetricError("a group holds tokens of two labels: groups must be finer than labels")
    return rng.permutation(codes[first])[number]


def draw(codes: np.ndarray, groups: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """How often each token enters a bootstrap sample, float64 [T]: drawn with replacement within each label.

    With `groups`, whole groups are drawn, so that the interval speaks of other documents and not of other tokens of
    the same ones.
    """
    unit = np.arange(len(codes)) if groups is None else np.unique(groups, return_inverse=True)[1]
    times = np.zeros(unit.max() + 1)
    for label in np.unique(codes):
        members = np.unique(unit[codes == label])
        times += np.bincount(rng.choice(members, len(members)), minlength=len(times))
    return times[unit]


def resampled(
    statistic: Callable[[np.ndarray, np.ndarray], np.ndarray],
    codes: np.ndarray,
    count: np.ndarray,
    *,
    resamples: int,
    seed: int,
    groups: np.ndarray | None = None,
    shuffler: Callable[[np.random.Generator], np.ndarray] | None = None,
    names: tuple = (),
) -> Measure:
    """`statistic(codes, times)` with a shuffled baseline and a bootstrap interval.

    Args:
      statistic: the metric as a function of each token's label and of how often the token counts.
      codes: int [T], labels as numbers.
      count: goes into the result.
      resamples: number of shuffles and of bootstrap samples; 0 for neither.
      seed: of both.
      groups: int [T], tokens that belong together (one document).
      shuffler: another way to shuffle `codes`.
      names: goes into the result.
    """
    once = np.ones(len(codes))
    value = statistic(codes, once)
    if not resamples:
        return Measure(value, count, names=names)
    rng = np.random.default_rng(seed)
    mixed = [statistic(shuffler(rng) if shuffler else shuffle(codes, groups, rng), once) for _ in range(resamples)]
    again = np.array([statistic(codes, draw(codes, groups, rng)) for _ in range(resamples)])
    return Measure(
        value,
        count,
        baseline=np.mean(mixed, 0),
        baseline_range=np.percentile(mixed, LEVEL, 0),
        interval=value + np.percentile(again - again.mean(0), LEVEL, 0),
        names=names,
    )


def entropy(p: np.ndarray, axis: int = -1) -> np.ndarray:
    """Shannon entropy in nats along an axis; 0 ln 0 = 0."""
    return -(p * np.log(np.where(p > 0, p, 1))).sum(axis)
