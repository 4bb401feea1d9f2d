"""The languages of lesson 16: their rule, their samples, and the reader who knows both."""

import itertools

import numpy as np
import pytest

from gptoss_jax.course.languages import CHANCES, Languages

SMALL = Languages.draw(3, languages=2, shared=8, private=2)


def test_every_word_is_equally_frequent_and_every_row_has_the_same_entropy():
    for rule, circle in zip(SMALL.rule, SMALL.circles, strict=True):
        own = rule[np.ix_(circle, circle)]
        assert np.allclose(own.sum(0), 1) and np.allclose(own.sum(1), 1)
        assert (np.sort(own, axis=1)[:, -3:] == sorted(CHANCES)).all() and rule.sum() == pytest.approx(len(circle))


def test_samples_follow_the_rule():
    language, text = SMALL.sample(np.random.default_rng(0), 4000, 12)
    for d, rule in enumerate(SMALL.rule):
        mine = text[language == d]
        assert set(mine.ravel()) == set(SMALL.circles[d])
        counted = np.zeros_like(rule)
        np.add.at(counted, (mine[:, :-1], mine[:, 1:]), 1)
        assert np.abs(counted / np.maximum(counted.sum(1, keepdims=True), 1) - rule).max() < 0.03


def test_the_ideal_reader_is_the_ratio_of_two_sums_over_languages():
    _, text = SMALL.sample(np.random.default_rng(1), 20, 6)

    def probability(words):
        each = []
        for rule, circle in zip(SMALL.rule, SMALL.circles, strict=True):
            p = (words[0] in circle) / len(circle)
            for before, after in itertools.pairwise(words):
                p *= rule[before, after]
            each.append(p)
        return sum(each)

    losses = SMALL.ideal_losses(text)
    assert losses.shape == (20, 5) and np.isfinite(losses).all()
    for row, got in zip(text.tolist(), losses, strict=True):
        want = [-np.log(probability(row[: t + 1]) / probability(row[:t])) for t in range(1, 6)]
        assert np.allclose(got, want)
