"""Every figure that one trace allows, in the order of the definitions: what ``gptoss-jax trace`` writes to a folder."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from gptoss_jax.routing import figures, metrics
from gptoss_jax.routing.figures import Drawing
from gptoss_jax.tracing import Trace

SHOWN_TOKENS = 64  # as many columns as stay legible
MIN_COUNT = 10  # tokens behind a ratio


def drawings(
    trace: Trace,
    labels: Sequence[str] = (),
    groups: np.ndarray | None = None,
    layers: Sequence[int] | None = None,
    resamples: int = 20,
) -> Iterator[tuple[str, Drawing]]:
    """Measure a trace and draw what it has the data for, one figure at a time.

    A trace without weights (vLLM) has no mass or gate entropy, a compact one no router entropy or margins, a text
    without Harmony roles no parts, and without labels there are no domains: those figures are left out.

    Args:
      trace: at least one token.
      labels: T domains, or none.
      groups: int [T], the document of each token, for baselines and intervals.
      layers: those of the figures that show one layer; first, middle and last when None.
      resamples: shuffles and bootstrap samples.

    Yields:
      A name that can be a file's, and the drawing.
    """
    L, T = trace.num_layers, len(trace)
    some = sorted({0, L // 2, L - 1}) if layers is None else sorted(set(layers))
    whole: list[tuple[str, Callable[[], Drawing]]] = [
        ("load", lambda: figures.load_map(metrics.load(trace).value, T)),
        ("evenness", lambda: _evenness(trace)),
    ]
    if trace.has_weights:
        first = metrics.first_choice(trace)
        near = slice(0, SHOWN_TOKENS)
        whole += [
            ("mass", lambda: figures.mass_map(metrics.mass(trace).value, T)),
            ("first_choices", lambda: figures.token_layer_map(first.weight[near], first.expert[near])),
            (
                "gate_entropy",
                lambda: figures.layer_spread(metrics.gate_entropy(trace).value, "entropy of the weights", (0, 1)),
            ),
        ]
        whole += [
            (f"tokens_layer_{layer:02}", lambda layer=layer: _grid(trace, layer))  # type: ignore[misc]
            for layer in some
        ]
    if trace.router_logits is not None:
        whole += [
            (
                "router_entropy",
                lambda: figures.layer_spread(metrics.router_entropy(trace).value, "entropy of the router", (0, 1)),
            ),
            ("balance_loss", lambda: _balance_loss(trace)),
        ]
        if trace.num_experts > trace.experts_per_token:
            margin = metrics.margins(trace).of_set
            whole.append(("margin", lambda: figures.layer_spread(margin, "margin of the set, logits", log=True)))
    often = metrics.load(trace).value * T * trace.experts_per_token >= MIN_COUNT
    whole += [
        (f"together_layer_{layer:02}", lambda layer=layer: _together(trace, layer))  # type: ignore[misc]
        for layer in some
        if trace.experts_per_token > 1 and often[layer].sum() >= trace.num_experts / 2
    ]
    if T > 1:
        whole.append(("repetition", lambda: _repetition(trace, groups)))
    if np.unique(trace.tokens, return_counts=True)[1].max(initial=0) >= MIN_COUNT:
        whole.append(("vocabulary", lambda: _vocabulary(trace, resamples)))
    if L > 1:
        flow = metrics.flow(trace, weighted=trace.has_weights, resamples=resamples)
        whole.append(("flow", lambda: _layers(flow.shared, "information shared with the next layer", T)))
        whole += [
            (f"flow_layer_{layer:02}", lambda layer=layer: _flow(flow, layer))  # type: ignore[misc]
            for layer in some
            if layer < L - 1
        ]
    if any(trace.roles):
        parts = metrics.by_part(trace, resamples=0)
        whole.append(("parts", lambda: figures.part_maps(parts.load, parts.names, parts.tokens)))
    if trace.generated is not None and len(set(trace.generated.tolist())) == 2:
        halves = metrics.by_part(trace, "generated", resamples=0)
        whole.append(("prompt_and_generated", lambda: figures.part_maps(halves.load, halves.names, halves.tokens)))
    for name, draw in whole:
        yield name, draw()
    if len(set(labels)) > 1:
        yield from _domains(trace, labels, groups, some, resamples)


def _layers(measure: metrics.Measure, name: str, count: int, **options) -> Drawing:
    return figures.layer_values(
        measure.value,
        name,
        count,
        baseline=measure.baseline,
        baseline_range=measure.baseline_range,
        interval=measure.interval,
        **options,
    )


def _evenness(trace: Trace) -> Drawing:
    b = metrics.balance(trace)
    return figures.balance_panels(*b[:5], trace.num_experts, trace.experts_per_token, len(trace))


def _grid(trace: Trace, layer: int) -> Drawing:
    first = np.arange(len(trace)) < SHOWN_TOKENS
    return figures.token_expert_map(metrics.layer_weights(trace, layer, first), layer)


def _balance_loss(trace: Trace) -> Drawing:
    values = np.stack([metrics.balance_loss(trace, "top-k").value, metrics.balance_loss(trace, "switch").value])
    even = np.ones(trace.num_layers)
    return figures.layer_values(
        values, "balance loss", len(trace), ("top-k", "switch"), baseline=even, baseline_name="an even load"
    )


def _together(trace: Trace, layer: int) -> Drawing:
    c = metrics.coactivation(trace, min_count=MIN_COUNT)
    order = metrics.neighbor_order(c.jaccard[layer])
    return figures.coactivation_map(c.lift[layer], order, layer, c.tokens)


def _repetition(trace: Trace, groups: np.ndarray | None) -> Drawing:
    r = metrics.repetition(trace, groups=groups)
    return figures.layer_values(
        np.stack([r.first.value, r.any.value]),
        "share of neighboring tokens",
        int(r.any.count[0]),
        ("same first choice", "sets that meet"),
        baseline=r.any.baseline,
        baseline_name="random sets that meet",
        unit="pair",
    )


def _vocabulary(trace: Trace, resamples: int) -> Drawing:
    v = metrics.vocabulary_specialization(trace, min_count=MIN_COUNT, resamples=resamples)
    return _layers(v, "vocabulary specialization", int(v.count[0]), baseline_name="shuffled ids", unit="token id")


def _flow(flow: metrics.Flow, layer: int) -> Drawing:
    joint = flow.joint[layer]
    return figures.flow_map(joint, *metrics.strongest_links(joint), layer, flow.tokens)


def _domains(
    trace: Trace, labels: Sequence[str], groups: np.ndarray | None, layers: Sequence[int], resamples: int
) -> Iterator[tuple[str, Drawing]]:
    # a shuffle of documents needs several a domain; with one each there is only one way to deal them
    if groups is not None and len(np.unique(groups)) < 2 * len(set(labels)):
        groups = None
    options = {"groups": groups, "resamples": resamples}
    T = len(trace)
    about = metrics.domain_information(trace, labels, **options)  # type: ignore[arg-type]
    yield "domain_information", _layers(about, "I(expert; domain), nats", T)
    given = metrics.conditional_information(trace, labels, **options)  # type: ignore[arg-type]
    yield "domain_information_given_token", _layers(given, "I(expert; domain | token), nats", int(given.count[0]))
    share = metrics.domain_specialization(trace, labels, **options)  # type: ignore[arg-type]
    apart = metrics.domain_divergence(trace, labels, **options)  # type: ignore[arg-type]
    tokens = apart.count
    for layer in layers:
        yield (
            f"domains_layer_{layer:02}",
            figures.specialization_map(
                share.value[layer],
                share.names,
                tokens,
                trace.experts_per_token,
                layer,
                None if share.baseline is None else share.baseline[layer],
                None if share.baseline_range is None else share.baseline_range[:, layer],
            ),
        )
        shuffled = None if apart.baseline is None else apart.baseline[layer]
        yield f"divergence_layer_{layer:02}", figures.divergence_map(apart.value[layer], apart.names, layer, shuffled)
    c = metrics.standing_committee(trace, labels, weighted=trace.has_weights, **options)  # type: ignore[arg-type]
    yield "committee", figures.committee_map(c.members, c.mass, 0.5)
    yield "committee_overlap", _layers(c.jaccard, "committees' overlap between domains", T)
