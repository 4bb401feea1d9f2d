"""Metrics find what was planted, and nothing where nothing was."""

import numpy as np
import pytest

from gptoss_jax.routing import metrics
from gptoss_jax.routing.planted import planted_trace

PLANTED = planted_trace()
NOISE = planted_trace(strength=0.0)


def test_specialization_finds_every_domains_home():
    ds = metrics.domain_specialization(PLANTED.trace, PLANTED.labels, resamples=20)
    assert ds.names == tuple(f"domain {d}" for d in range(4))
    L = PLANTED.trace.num_layers
    top = ds.value[np.arange(L)[:, None], np.arange(4), PLANTED.home]
    assert (top > 0.9).all()
    assert (ds.interval[0][np.arange(L)[:, None], np.arange(4), PLANTED.home] > ds.baseline_range[1].max()).all()
    spread = np.ptp(ds.baseline, axis=1)  # shuffled: every domain gets the same experts
    assert spread.max() < 0.06


def test_coactivation_finds_the_partner_of_every_home():
    c = metrics.coactivation(PLANTED.trace, min_count=20)
    for layer in range(PLANTED.trace.num_layers):
        home = PLANTED.home[layer]
        assert np.array_equal(np.nanargmax(c.lift[layer, home], -1), PLANTED.partner[layer, home])


def test_flow_finds_the_next_home():
    f = metrics.flow(PLANTED.trace)
    for layer, row in enumerate(PLANTED.next_home):
        for e in np.flatnonzero(row >= 0):
            to = f.joint[layer, e] / f.joint[layer, e].sum()
            home, partner = row[e], PLANTED.partner[layer + 1, row[e]]
            others = np.delete(to, [home, partner])
            assert to[home] > to[partner] > others.max() or to[home] > others.max() + 0.1
    assert (f.shared.value > 20 * f.shared.baseline).all()
    assert f.shared.value.shape == (3,)


def test_information_is_found_given_the_word_too():
    given = metrics.conditional_information(PLANTED.trace, PLANTED.labels, resamples=50)
    plain = metrics.domain_information(PLANTED.trace, PLANTED.labels, resamples=50)
    for m in (given, plain):
        assert (m.interval[0] > m.baseline_range[1]).all()
    assert (plain.excess > given.excess).all()  # half of the words tell the domain themselves


def test_a_router_that_looks_at_the_word_alone_carries_no_information_given_the_word():
    trace, labels = PLANTED.trace, PLANTED.labels
    ids = (trace.tokens // 10)[:, None, None]
    plain = metrics.domain_information(ids, labels, 8, resamples=50)
    given = metrics.conditional_information(ids, labels, trace.tokens, 8, resamples=50)
    assert plain.interval[0, 0] > plain.baseline_range[1, 0]
    assert given.value[0] == pytest.approx(0, abs=1e-12)


def test_where_nothing_is_planted_every_metric_stays_with_its_baseline():
    trace, labels = NOISE.trace, NOISE.labels
    checks = {
        "information": metrics.domain_information(trace, labels, resamples=100),
        "given the word": metrics.conditional_information(trace, labels, resamples=100),
        "vocabulary": metrics.vocabulary_specialization(trace, resamples=40),
        "flow": metrics.flow(trace, resamples=40).shared,
        "committee": metrics.standing_committee(trace, labels, resamples=100).jaccard,
    }
    for name, m in checks.items():
        low, high = m.baseline_range
        spread = high - low
        assert ((m.value > low - spread) & (m.value < high + spread)).all(), name
    ds = metrics.domain_specialization(trace, labels, resamples=100)
    inside = (ds.value >= ds.baseline_range[0]) & (ds.value <= ds.baseline_range[1])
    assert 0.88 < inside.mean() <= 1
    assert ds.excess.std() < 0.04


def test_committees_of_planted_domains_differ_and_their_shuffle_does_not():
    c = metrics.standing_committee(PLANTED.trace, PLANTED.labels, 0.5)
    assert (c.jaccard.value < c.jaccard.baseline_range[0]).all()
    home = np.take_along_axis(c.members, PLANTED.home[:, :, None], -1)
    assert home.all()


@pytest.mark.parametrize("wrong", [{"num_experts": 7}, {"num_domains": 9}, {"experts_per_token": 1}, {"strength": 1.5}])
def test_impossible_toys_are_refused(wrong):
    with pytest.raises(ValueError, match="need an even num_experts"):
        planted_trace(**wrong)
