"""Every metric against loops over tokens and experts, and the invariants of its definition."""

import importlib.util
import time
from collections import Counter
from itertools import combinations, pairwise
from math import comb, log
from pathlib import Path

import numpy as np
import pytest
from routing_cases import from_logits, random_trace

from gptoss_jax.routing import metrics

CASES = [
    random_trace(40, 3, 6, 2, 0),
    random_trace(25, 2, 8, 4, 1),
    random_trace(12, 4, 5, 1, 2),
    random_trace(30, 2, 4, 4, 3),
]
cases = pytest.mark.parametrize("trace", CASES, ids=lambda t: f"T{len(t)}L{t.num_layers}E{t.num_experts}")
LABELS = ["a", "b", "c"]


def labels_of(trace):
    return [LABELS[t % 3] for t in range(len(trace))]


def walk(trace):
    """(token, layer, rank, expert, weight) of every choice."""
    for t in range(len(trace)):
        for layer in range(trace.num_layers):
            for rank in range(trace.experts_per_token):
                yield t, layer, rank, int(trace.experts[t, layer, rank]), float(trace.weights[t, layer, rank])


def H(p):
    return -sum(float(x) * log(x) for x in np.ravel(p) if x > 0)


@cases
def test_load_and_mass(trace):
    T, L, X = trace.experts.shape
    count, weight = np.zeros((2, L, trace.num_experts))
    for _, layer, _, e, w in walk(trace):
        count[layer, e] += 1
        weight[layer, e] += w
    load, mass = metrics.load(trace), metrics.mass(trace)
    np.testing.assert_allclose(load.value, count / (X * T))
    np.testing.assert_allclose(mass.value, weight / T, rtol=1e-6)
    assert np.array_equal(load.count, count)
    assert np.array_equal(mass.count, count)
    np.testing.assert_allclose(load.value.sum(-1), 1)
    np.testing.assert_allclose(mass.value.sum(-1), 1, rtol=1e-6)
    assert np.array_equal(metrics.load(trace.experts, trace.num_experts).value, load.value)


def test_mass_is_load_exactly_when_weights_are_even():
    rng = np.random.default_rng(0)
    even = from_logits(rng.integers(2, size=(20, 2, 6)) * 50.0 + 0 * rng.random(), 2)
    tied = from_logits(np.zeros((9, 2, 6)), 3)
    np.testing.assert_allclose(metrics.mass(tied).value, metrics.load(tied).value)
    assert set(np.unique(tied.experts)) == {0, 1, 2}  # ties go to the lower id
    assert not np.allclose(metrics.mass(CASES[0]).value, metrics.load(CASES[0]).value)
    assert metrics.mass(even).value.shape == (2, 6)


@cases
def test_first_choice_and_the_table_of_one_layer(trace):
    X = trace.experts_per_token
    top = metrics.first_choice(trace)
    for t, layer, rank, e, w in walk(trace):
        if rank == 0:
            assert top.expert[t, layer] == e
            assert top.weight[t, layer] == pytest.approx(w)
    assert (top.weight >= 1 / X - 1e-6).all()
    assert (top.weight <= 1).all()
    for layer in range(trace.num_layers):
        table = metrics.layer_weights(trace, layer)
        assert ((table > 0).sum(-1) == X).all()
        np.testing.assert_allclose(table.sum(-1), 1, rtol=1e-6)
        for t, at, _, e, w in walk(trace):
            if at == layer:
                assert table[t, e] == pytest.approx(w)


@cases
def test_entropies(trace):
    X, E = trace.experts_per_token, trace.num_experts
    gate, router = metrics.gate_entropy(trace, normalized=False), metrics.router_entropy(trace, normalized=False)
    for t in range(len(trace)):
        for layer in range(trace.num_layers):
            z = trace.router_logits[t, layer].astype(float)
            p = np.exp(z) / np.exp(z).sum()
            assert gate.value[t, layer] == pytest.approx(H(trace.weights[t, layer]), abs=1e-6)
            assert router.value[t, layer] == pytest.approx(H(p), abs=1e-5)
    assert (gate.value >= -1e-9).all()
    assert (gate.value <= log(X) + 1e-6).all()
    if X > 1:
        np.testing.assert_allclose(metrics.gate_entropy(trace).value, gate.value / log(X))
    np.testing.assert_allclose(metrics.router_entropy(trace).value, router.value / log(E))


def test_even_logits_are_the_most_uncertain_and_masked_experts_do_not_count():
    flat = from_logits(np.zeros((3, 2, 5)), 2)
    np.testing.assert_allclose(metrics.router_entropy(flat).value, 1, rtol=1e-6)
    np.testing.assert_allclose(metrics.gate_entropy(flat).value, 1, rtol=1e-6)
    z = np.zeros((1, 1, 4))
    z[..., 3] = -np.inf
    assert metrics.router_entropy(from_logits(z, 2), normalized=False).value[0, 0] == pytest.approx(log(3))


@cases
def test_margins(trace):
    X, E = trace.experts_per_token, trace.num_experts
    m = metrics.margins(trace)
    for t in range(len(trace)):
        for layer in range(trace.num_layers):
            z = sorted(trace.router_logits[t, layer].astype(float), reverse=True)
            assert m.of_set[t, layer] == pytest.approx(z[X - 1] - z[X] if X < E else np.inf)
            assert m.of_first[t, layer] == pytest.approx(z[0] - z[1])
    assert (m.of_set >= 0).all()
    assert (m.of_first >= 0).all()


def test_noise_below_half_the_margin_leaves_the_set_and_more_can_change_it():
    trace = CASES[0]
    rng = np.random.default_rng(0)
    margin = metrics.margins(trace).of_set[..., None]
    noise = rng.choice([-1, 1], trace.router_logits.shape)
    below = from_logits(trace.router_logits + 0.499 * margin * noise, 2)
    above = from_logits(trace.router_logits + 2 * margin * noise, 2)
    assert (metrics.overlap(trace.experts, below.experts, 6) == 1).all()
    assert (metrics.overlap(trace.experts, above.experts, 6) < 1).any()


@cases
def test_balance(trace):
    E = trace.num_experts
    load = metrics.load(trace).value
    b = metrics.balance(trace)
    for layer, row in enumerate(load):
        assert b.effective[layer] == pytest.approx(np.exp(H(row)))
        differences = sum(abs(x - y) for x in row for y in row)
        assert b.gini[layer] == pytest.approx(differences / (2 * E * sum(row)))
        assert b.variation[layer] == pytest.approx(np.std(row) / np.mean(row))
        assert b.violation[layer] == pytest.approx(E * max(row) - 1)
        assert b.dead[layer] == sum(x == 0 for x in row)
    assert (b.tokens == len(trace)).all()
    assert (b.effective >= trace.experts_per_token - 1e-9).all()


def test_balance_at_its_two_ends():
    even = metrics.balance(np.arange(8).reshape(8, 1, 1), 8)
    assert even.effective[0] == pytest.approx(8)
    assert even.gini[0] == even.variation[0] == even.violation[0] == even.dead[0] == 0
    constant = metrics.balance(np.tile([1, 4, 6], (9, 1, 1)), 8)
    assert constant.effective[0] == pytest.approx(3)
    assert constant.dead[0] == 5


@cases
def test_balance_loss(trace):
    T, E, X = len(trace), trace.num_experts, trace.experts_per_token
    for layer in range(trace.num_layers):
        P, first, any_ = np.zeros((3, E))
        for t in range(T):
            z = trace.router_logits[t, layer].astype(float)
            P += np.exp(z) / np.exp(z).sum() / T
            first[trace.experts[t, layer, 0]] += 1 / T
            any_[trace.experts[t, layer]] += 1 / (X * T)
        assert metrics.balance_loss(trace, "switch").value[layer] == pytest.approx(E * (first * P).sum(), rel=1e-5)
        assert metrics.balance_loss(trace).value[layer] == pytest.approx(E * (any_ * P).sum(), rel=1e-5)


def test_balance_loss_is_one_when_even_and_more_when_not():
    even = from_logits(np.eye(4)[:, None] * 3, 1)
    for kind in ("switch", "top-k"):
        assert metrics.balance_loss(even, kind).value[0] == pytest.approx(1)
        assert metrics.balance_loss(from_logits(np.tile([5.0, 1, 0, 0], (6, 1, 1)), 2), kind).value[0] > 1.5


@cases
def test_coactivation(trace):
    T, E, X = len(trace), trace.num_experts, trace.experts_per_token
    c = metrics.coactivation(trace)
    for layer in range(trace.num_layers):
        sets = [set(trace.experts[t, layer].tolist()) for t in range(T)]
        n = [sum(e in s for s in sets) for e in range(E)]
        for a in range(E):
            for b in range(E):
                both = sum(a in s and b in s for s in sets)
                assert c.pairs[layer, a, b] == both
                if a != b and n[a] and n[b]:
                    assert c.given[layer, a, b] == pytest.approx(both / n[a])
                    assert c.lift[layer, a, b] == pytest.approx(both * T / (n[a] * n[b]))
                    assert c.jaccard[layer, a, b] == pytest.approx(both / (n[a] + n[b] - both))
                elif a == b or not n[a]:
                    assert np.isnan(c.given[layer, a, b])
            if n[a]:
                assert np.nansum(c.given[layer, a]) == pytest.approx(X - 1)
        assert np.array_equal(c.count[layer], n)
        np.testing.assert_array_equal(c.jaccard[layer], c.jaccard[layer].T)
    assert c.baseline == pytest.approx((X - 1) / (E - 1))


def test_coactivation_hides_rare_experts_and_random_sets_meet_the_baseline():
    hidden = metrics.coactivation(CASES[0], min_count=10**6)
    assert np.isnan(hidden.given).all()
    big = random_trace(20_000, 1, 8, 3, 0)
    rng = np.random.default_rng(0)
    sets = np.argsort(rng.random((20_000, 1, 8)), -1)[..., :3]
    c = metrics.coactivation(sets, 8)
    assert np.nanmax(abs(c.given - c.baseline)) < 0.02
    assert np.nanmax(abs(metrics.coactivation(big).given - c.baseline)) > 0.1


def test_neighbor_order_puts_blocks_side_by_side():
    similarity = np.eye(6)
    for a, b in ((0, 3), (3, 5), (1, 4), (4, 2)):
        similarity[a, b] = similarity[b, a] = 0.5
    similarity[0, 5] = similarity[5, 0] = 0.4
    order = metrics.neighbor_order(similarity).tolist()
    assert sorted(order) == list(range(6))
    assert {frozenset(order[:3]), frozenset(order[3:])} == {frozenset({0, 3, 5}), frozenset({1, 2, 4})}
    assert metrics.neighbor_order(np.full((3, 3), np.nan)).tolist() == metrics.neighbor_order(np.zeros((3, 3))).tolist()
    assert metrics.neighbor_order(np.ones((1, 1))).tolist() == [0]


@cases
def test_domain_specialization(trace):
    E, X = trace.num_experts, trace.experts_per_token
    labels = labels_of(trace)
    ds = metrics.domain_specialization(trace, labels, resamples=3)
    assert ds.names == ("a", "b", "c")
    for layer in range(trace.num_layers):
        for d, name in enumerate(ds.names):
            mine = [t for t in range(len(trace)) if labels[t] == name]
            for e in range(E):
                n = sum(e in trace.experts[t, layer] for t in mine)
                assert ds.count[layer, d, e] == n
                assert ds.value[layer, d, e] == pytest.approx(n / len(mine))
    np.testing.assert_allclose(ds.value.sum(-1), X)
    np.testing.assert_allclose(ds.baseline.sum(-1), X)
    np.testing.assert_allclose(ds.interval.mean(0), ds.value, atol=0.5)


@cases
def test_divergence_and_information(trace):
    labels = labels_of(trace)
    jsd = metrics.domain_divergence(trace, labels, resamples=0).value
    info = metrics.domain_information(trace, labels, resamples=0).value
    for layer in range(trace.num_layers):
        p = []
        for name in LABELS:
            seen = Counter(int(e) for t in range(len(trace)) if labels[t] == name for e in trace.experts[t, layer])
            p.append(np.array([seen[e] for e in range(trace.num_experts)]) / sum(seen.values()))
        for a, b in combinations(range(3), 2):
            expected = H((p[a] + p[b]) / 2) - (H(p[a]) + H(p[b])) / 2
            assert jsd[layer, a, b] == jsd[layer, b, a] == pytest.approx(expected, abs=1e-12)
        joint = np.array(p) / 3
        expected = H(joint.sum(0)) + H(joint.sum(1)) - H(joint)
        assert info[layer] == pytest.approx(expected, abs=1e-12)
    assert (jsd >= 0).all()
    assert (jsd <= log(2)).all()


def test_identical_domains_have_no_distance_and_disjoint_ones_ln_2():
    ids = np.repeat([0, 1, 2, 3], 2).reshape(8, 1, 1)
    same = ["a", "b"] * 4
    apart = ["a"] * 4 + ["b"] * 4
    assert metrics.domain_divergence(ids, same, 4, resamples=0).value.max() == 0
    assert metrics.domain_information(ids, same, 4, resamples=0).value[0] == pytest.approx(0, abs=1e-12)
    assert metrics.domain_divergence(ids, apart, 4, resamples=0).value[0, 0, 1] == pytest.approx(log(2))
    assert metrics.domain_information(ids, apart, 4, resamples=0).value[0] == pytest.approx(log(2))


def test_the_shuffled_information_is_its_known_bias():
    n, E, D = 3000, 8, 4
    rng = np.random.default_rng(0)
    ids = rng.integers(E, size=(n, 1, 1))
    labels = [f"{d}" for d in rng.integers(D, size=n)]
    m = metrics.domain_information(ids, labels, E, resamples=60)
    assert m.baseline[0] == pytest.approx((E - 1) * (D - 1) / (2 * n), rel=0.2)
    assert m.baseline_range[0, 0] <= m.value[0] <= m.baseline_range[1, 0]


@cases
def test_conditional_information(trace):
    labels = labels_of(trace)
    T, X = len(trace), trace.experts_per_token
    m = metrics.conditional_information(trace, labels, resamples=0)
    for layer in range(trace.num_layers):
        total = 0.0
        for x in set(trace.tokens.tolist()):
            mine = [t for t in range(T) if trace.tokens[t] == x]
            joint = np.zeros((3, trace.num_experts))
            for t in mine:
                for e in trace.experts[t, layer]:
                    joint[LABELS.index(labels[t]), e] += 1 / (X * len(mine))
            total += len(mine) / T * (H(joint.sum(0)) + H(joint.sum(1)) - H(joint))
        assert m.value[layer] == pytest.approx(total, abs=1e-9)
    both = [x for x in set(trace.tokens.tolist()) if len({labels[t] for t in range(T) if trace.tokens[t] == x}) > 1]
    assert (m.count == np.isin(trace.tokens, both).sum()).all()
    plain = metrics.conditional_information(trace.experts, labels, trace.tokens, trace.num_experts, resamples=0)
    np.testing.assert_array_equal(plain.value, m.value)


@cases
@pytest.mark.parametrize("token", ["input", "next", "predicted"])
def test_vocabulary_specialization(trace, token):
    T, X = len(trace), trace.experts_per_token
    x = {"input": trace.tokens, "next": trace.tokens[1:], "predicted": trace.logits.argmax(-1)}[token]
    m = metrics.vocabulary_specialization(trace, token, min_count=3, resamples=0)
    for layer in range(trace.num_layers):
        best = []
        for value in set(x.tolist()):
            mine = [t for t in range(len(x)) if x[t] == value]
            if len(mine) >= 3:
                seen = Counter(int(e) for t in mine for e in trace.experts[t, layer])
                best.append(max(seen.values()) / len(mine))
        assert m.value[layer] == pytest.approx(np.mean(best))
        assert m.count[layer] == len(best)
    assert (m.value >= X / trace.num_experts).all()
    assert (m.value <= 1).all()
    assert T >= 12


def test_vocabulary_specialization_is_one_when_ids_decide_and_the_baseline_is_not_k_over_e():
    rng = np.random.default_rng(0)
    x = rng.integers(6, size=240)
    decided = metrics.vocabulary_specialization(x[:, None, None] % 4, x, 4)
    assert decided.value[0] == 1
    free = metrics.vocabulary_specialization(rng.integers(4, size=(240, 1, 1)), x, 4)
    assert free.baseline_range[0, 0] <= free.value[0] <= free.baseline_range[1, 0]
    assert free.baseline[0] > 1.15 / 4  # a maximum over noise: 1/4 would be the wrong yardstick
    assert free.interval[0, 0] <= free.value[0] <= free.interval[1, 0]


def test_the_next_token_does_not_cross_a_document():
    trace = random_trace(20)
    groups = np.repeat([0, 1], 10)
    pairing = metrics.pair_tokens(trace, "next", groups=groups, min_count=1)
    assert pairing.count.sum() == 18
    assert metrics.repetition(trace, groups=groups).first.count[0] == 18
    assert metrics.repetition(trace).first.count[0] == 19


@cases
@pytest.mark.parametrize("by", ["share", "pmi"])
def test_top_tokens(trace, by):
    kept = [x for x, n in Counter(trace.tokens.tolist()).items() if n >= 3]
    for expert in range(trace.num_experts):
        rows = []
        N_e = sum(expert in trace.experts[t, 0] for t in range(len(trace)) if trace.tokens[t] in kept)
        N = sum(int(x) in kept for x in trace.tokens)
        for x in kept:
            n = sum(trace.tokens == x)
            together = sum(expert in trace.experts[t, 0] for t in range(len(trace)) if trace.tokens[t] == x)
            if together:
                score = together / n if by == "share" else log(together * N / (n * N_e))
                rows.append((-score, -n, x, together))
        top = metrics.top_tokens(trace, 0, expert, by, min_count=3, n=3)
        rows.sort(key=lambda r: (round(r[0], 12), r[1], r[2]))
        assert top.ids.tolist() == [r[2] for r in rows[:3]]
        np.testing.assert_allclose(top.score, [-r[0] for r in rows[:3]])
        assert top.together.tolist() == [r[3] for r in rows[:3]]
        assert top.text == tuple(f"w{x}" for x in top.ids)


@cases
def test_overlap_saturation_and_curves(trace):
    other = from_logits(
        trace.router_logits + np.random.default_rng(5).normal(size=trace.router_logits.shape),
        trace.experts_per_token,
        tokens=trace.tokens,
    )
    X = trace.experts_per_token
    each = metrics.overlap(trace, other)
    for t in range(len(trace)):
        for layer in range(trace.num_layers):
            common = set(trace.experts[t, layer].tolist()) & set(other.experts[t, layer].tolist())
            assert each[t, layer] == len(common) / X
    s = metrics.saturation(trace, other)
    np.testing.assert_allclose(s.value, each.mean(0))
    assert (s.interval[0] <= s.value + 1e-12).all()
    assert (s.value <= s.interval[1] + 1e-12).all()
    assert (s.baseline == X / trace.num_experts).all()
    assert (metrics.saturation(trace, trace).value == 1).all()
    curves = metrics.agreement_curves(trace, {"self": trace, "noise": other})
    np.testing.assert_array_equal(curves.value, [np.ones(trace.num_layers), s.value])
    assert curves.names == ("self", "noise")
    assert curves.interval.shape == (2, 2, trace.num_layers)


def test_random_routing_saturates_at_k_over_e():
    a, b = (np.argsort(np.random.default_rng(s).random((4000, 1, 8)), -1)[..., :3] for s in (0, 1))
    m = metrics.saturation(a, b, 8)
    assert m.interval[0, 0] < 3 / 8 < m.interval[1, 0]


def test_flips_by_margin():
    trace = random_trace(400, 2, 8, 2, 0)
    noise = np.random.default_rng(1).normal(size=trace.router_logits.shape) * 0.3
    other = from_logits(trace.router_logits + noise, 2, tokens=trace.tokens)
    f = metrics.flips_by_margin(trace, other, bins=4)
    assert f.count.sum() == 800
    margin = metrics.margins(trace).of_set
    for layer in range(2):
        for i in range(4):
            last = i == 3
            inside = [
                set(trace.experts[t, layer]) != set(other.experts[t, layer])
                for t in range(400)
                if f.edges[i] <= margin[t, layer] and (margin[t, layer] < f.edges[i + 1] or last)
            ]
            assert f.count[layer, i] == len(inside)
            assert f.rate[layer, i] == pytest.approx(np.mean(inside))
    assert (f.rate[:, 0] > 0.3).all()
    assert (f.rate[:, -1] < 0.05).all()


@cases
def test_repetition(trace):
    E, X = trace.num_experts, trace.experts_per_token
    r = metrics.repetition(trace)
    for layer in range(trace.num_layers):
        ids = trace.experts[:, layer]
        first = [ids[t, 0] == ids[t + 1, 0] for t in range(len(ids) - 1)]
        meet = [bool(set(ids[t].tolist()) & set(ids[t + 1].tolist())) for t in range(len(ids) - 1)]
        assert r.first.value[layer] == pytest.approx(np.mean(first))
        assert r.any.value[layer] == pytest.approx(np.mean(meet))
    assert (r.first.baseline == 1 / E).all()
    np.testing.assert_allclose(r.any.baseline, 1 - comb(E - X, X) / comb(E, X))


def test_repetition_of_mixtral_is_46_percent_by_chance():
    ids = np.argsort(np.random.default_rng(0).random((20_000, 1, 8)), -1)[..., :2]
    r = metrics.repetition(ids, 8)
    assert r.any.baseline[0] == pytest.approx(0.464, abs=1e-3)
    assert r.any.value[0] == pytest.approx(0.464, abs=0.015)


def test_similarities():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2, 4, 5))
    s = metrics.row_similarity(rows)
    for layer in range(2):
        for a in range(4):
            for b in range(4):
                x, y = rows[layer, a], rows[layer, b]
                assert s[layer, a, b] == pytest.approx(x @ y / np.sqrt((x @ x) * (y @ y)))
    np.testing.assert_allclose(np.diagonal(s, axis1=1, axis2=2), 1)
    outputs = rng.normal(size=(3, 7, 5))
    f = metrics.functional_similarity(outputs)
    for a in range(3):
        for b in range(3):
            cosines = [
                outputs[a, t] @ outputs[b, t] / np.linalg.norm(outputs[a, t]) / np.linalg.norm(outputs[b, t])
                for t in range(7)
            ]
            assert f[a, b] == pytest.approx(np.mean(cosines))
    assert metrics.row_similarity(np.zeros((2, 3))).tolist() == [[0, 0], [0, 0]]


def test_only_functional_similarity_survives_reordered_hidden_units():
    rng = np.random.default_rng(0)
    up, down, x = rng.normal(size=(2, 6, 4)), rng.normal(size=(2, 4, 6)), rng.normal(size=(9, 4))

    def outputs(up, down):
        return np.maximum(x @ up.swapaxes(1, 2), 0) @ down.swapaxes(1, 2)

    order = rng.permutation(6)
    up2, down2 = up.copy(), down.copy()
    up2[1], down2[1] = up[1, order], down[1][:, order]
    np.testing.assert_allclose(
        metrics.functional_similarity(outputs(up, down)), metrics.functional_similarity(outputs(up2, down2))
    )
    flat = lambda u: metrics.row_similarity(u.reshape(2, -1))[0, 1]
    assert abs(flat(up) - flat(up2)) > 0.05


@cases
def test_flow(trace):
    T, E = len(trace), trace.num_experts
    J = metrics.flow(trace, resamples=2).joint
    mass = metrics.mass(trace).value
    for layer in range(trace.num_layers - 1):
        joint = np.zeros((E, E))
        for t in range(T):
            for a, wa in zip(trace.experts[t, layer], trace.weights[t, layer], strict=True):
                for b, wb in zip(trace.experts[t, layer + 1], trace.weights[t, layer + 1], strict=True):
                    joint[a, b] += float(wa) * float(wb) / T
        np.testing.assert_allclose(J[layer], joint, atol=1e-12)
        np.testing.assert_allclose(J[layer].sum(1), mass[layer], atol=1e-6)
        np.testing.assert_allclose(J[layer].sum(0), mass[layer + 1], atol=1e-6)
        a, b = joint.sum(1), joint.sum(0)
        information = sum(
            joint[i, j] * log(joint[i, j] / (a[i] * b[j])) for i in range(E) for j in range(E) if joint[i, j] > 0
        )
        expected = information / ((H(a) + H(b)) / 2) if H(a) + H(b) > 0 else 0
        assert metrics.shared_information(J)[layer] == pytest.approx(expected, abs=1e-9)
        rows, columns, small = metrics.strongest_links(J[layer], 3)
        assert small.shape == (4, 4)
        assert small.sum() == pytest.approx(1)
        for i, r in enumerate(rows):
            for j, c in enumerate(columns):
                assert small[i, j] == pytest.approx(joint[r, c])
    plain = metrics.flow(trace.experts, E, weighted=False, resamples=0).joint
    np.testing.assert_allclose(plain[0].sum(1), metrics.load(trace).value[0])


def test_flow_of_a_fixed_map_shares_everything_and_of_independent_layers_nothing():
    rng = np.random.default_rng(0)
    a = rng.integers(6, size=(3000, 1, 1))
    chained = np.concatenate([a, (a * 5 + 1) % 6], 1)
    apart = np.concatenate([a, rng.integers(6, size=a.shape)], 1)
    assert metrics.flow(chained, 6, weighted=False).shared.value[0] == pytest.approx(1)
    f = metrics.flow(apart, 6, weighted=False).shared
    assert f.value[0] < 0.01
    assert f.baseline[0] == pytest.approx(f.value[0], abs=0.005)


@cases
def test_standing_committee(trace):
    labels = labels_of(trace)
    E, X = trace.num_experts, trace.experts_per_token
    c = metrics.standing_committee(trace, labels, 0.6, resamples=2)
    chosen = {}
    for layer in range(trace.num_layers):
        for d, name in enumerate(c.names):
            m = np.zeros(E)
            for t in range(len(trace)):
                if labels[t] == name:
                    for e, w in zip(trace.experts[t, layer], trace.weights[t, layer], strict=True):
                        m[e] += float(w)
            m /= m.sum()
            smallest = next(  # all sets by size: exhaustive
                size
                for size in range(1, E + 1)
                if any(sum(m[list(s)]) >= 0.6 - 1e-9 for s in combinations(range(E), size))
            )
            assert c.size[layer, d] == smallest
            assert c.mass[layer, d] == pytest.approx(m[c.members[layer, d]].sum(), abs=1e-6)
            assert c.mass[layer, d] >= 0.6 - 1e-9
            assert c.gini[layer, d] == pytest.approx(abs(m[:, None] - m).sum() / (2 * E))
            chosen[layer, d] = set(np.flatnonzero(c.members[layer, d]))
        pairs = [(chosen[layer, a], chosen[layer, b]) for a, b in combinations(range(3), 2)]
        assert c.jaccard.value[layer] == pytest.approx(np.mean([len(a & b) / len(a | b) for a, b in pairs]))
        assert set(np.flatnonzero(c.standing[layer])) == chosen[layer, 0] & chosen[layer, 1] & chosen[layer, 2]
    assert c.tokens.sum() == len(trace)
    assert X >= 1


def test_the_committee_grows_with_the_threshold():
    trace, labels = CASES[0], labels_of(CASES[0])
    runs = [metrics.standing_committee(trace, labels, tau, resamples=0) for tau in (0.1, 0.3, 0.5, 0.8, 1.0)]
    for small, large in pairwise(runs):
        assert (small.members <= large.members).all()
        assert (small.mass <= large.mass).all()


@cases
@pytest.mark.parametrize("by", ["role", "channel", "role and channel", "generated"])
def test_parts_sum_to_the_whole(trace, by):
    parts = metrics.by_part(trace, by, resamples=0)
    labels = metrics.part_labels(trace, by)
    T = len(trace)
    assert parts.tokens.sum() == T
    np.testing.assert_allclose(np.tensordot(parts.tokens / T, parts.load, 1), metrics.load(trace).value)
    np.testing.assert_allclose(parts.tokens @ parts.gate_entropy / T, metrics.gate_entropy(trace).value.mean(0))
    for p, name in enumerate(parts.names):
        mask = np.array([label == name for label in labels])
        assert parts.tokens[p] == mask.sum()
        np.testing.assert_array_equal(parts.load[p], metrics.load(trace, mask=mask).value)
        np.testing.assert_allclose(
            parts.specialization.value[:, p], metrics.load(trace, mask=mask).value * trace.experts_per_token
        )


def test_masks_choose_tokens():
    trace = random_trace(40)
    mask = metrics.token_mask(trace, generated=True, roles="assistant", channels=["final"], special=False)
    expected = [
        bool(trace.generated[t]) and trace.channels[t] == "final" and not trace.special[t] for t in range(len(trace))
    ]
    assert mask.tolist() == expected
    part = metrics.load(trace, mask=mask)
    assert part.count.sum() == mask.sum() * trace.num_layers * trace.experts_per_token
    np.testing.assert_array_equal(part.value, metrics.load(trace.experts[mask], trace.num_experts).value)
    for metric in (metrics.mass, metrics.gate_entropy, metrics.router_entropy):
        assert np.isfinite(metric(trace, mask=mask).value).all()
    both = sum(metrics.load(trace, mask=metrics.token_mask(trace, generated=g)).count for g in (True, False))
    np.testing.assert_array_equal(both, metrics.load(trace).count)


def test_intervals_hold_the_truth_and_documents_widen_them():
    rng = np.random.default_rng(0)
    labels, groups = np.repeat(["a", "b"], 600), np.repeat(np.arange(24), 50)
    lean = rng.random((24, 1)) < 0.5  # each document leans to one half of the experts, whatever its domain
    ids = (rng.integers(3, size=(24, 50)) + 3 * lean).reshape(-1, 1, 1)
    loose = metrics.domain_specialization(ids, labels.tolist(), 6, resamples=100)
    tight = metrics.domain_specialization(ids, labels.tolist(), 6, groups=groups, resamples=100)
    width = lambda m: (m.interval[1] - m.interval[0]).mean()
    assert width(tight) > 2 * width(loose)
    spread = lambda m: (m.baseline_range[1] - m.baseline_range[0]).mean()
    assert spread(tight) > 2 * spread(loose)
    by_document = metrics.domain_information(ids, labels.tolist(), 6, groups=groups, resamples=100)
    assert by_document.value[0] <= by_document.baseline_range[1, 0]


@pytest.mark.slow
def test_all_metrics_of_the_largest_trace_take_less_than_two_seconds():
    path = Path(__file__).parents[1] / "benchmarks" / "routing.py"
    spec = importlib.util.spec_from_file_location("benchmark_routing", path)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    a, b = (benchmark.random_trace(4096, 36, 128, 4, seed) for seed in (0, 1))
    b = type(a)(a.tokens, b.experts, b.weights, b.num_experts, b.router_logits, model=a.model)
    asked = benchmark.questions(a, b)
    start = time.process_time()  # this process alone: other work on the machine does not count
    for ask in asked.values():
        ask()
    assert time.process_time() - start < 2
