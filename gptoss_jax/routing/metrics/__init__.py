"""What routing can be asked, as pure NumPy functions on a `Trace` or on plain expert ids [tokens, layers, k].

Every metric is unchanged, or changes its axes along, when each layer's experts are renumbered on their own: the ids of
two layers, or of two models, have nothing to do with each other.
"""

from gptoss_jax.routing.metrics.agreement import (
    Flips,
    Repetition,
    agreement_curves,
    flips_by_margin,
    overlap,
    repetition,
    saturation,
)
from gptoss_jax.routing.metrics.committee import Committee, Parts, by_part, part_labels, standing_committee
from gptoss_jax.routing.metrics.confidence import (
    Margins,
    Top,
    first_choice,
    gate_entropy,
    layer_weights,
    margins,
    router_entropy,
)
from gptoss_jax.routing.metrics.crossing import Flow, flow, shared_information, strongest_links
from gptoss_jax.routing.metrics.information import conditional_information, domain_divergence, domain_information
from gptoss_jax.routing.metrics.inputs import MetricError, join, token_mask
from gptoss_jax.routing.metrics.loads import Balance, balance, balance_loss, gini, load, mass
from gptoss_jax.routing.metrics.measure import Measure
from gptoss_jax.routing.metrics.partners import Coactivation, coactivation, neighbor_order
from gptoss_jax.routing.metrics.similarity import functional_similarity, row_similarity
from gptoss_jax.routing.metrics.specialization import (
    Pairing,
    TopTokens,
    domain_specialization,
    pair_tokens,
    top_tokens,
    vocabulary_specialization,
)

__all__ = [
    "Balance",
    "Coactivation",
    "Committee",
    "Flips",
    "Flow",
    "Margins",
    "Measure",
    "MetricError",
    "Pairing",
    "Parts",
    "Repetition",
    "Top",
    "TopTokens",
    "agreement_curves",
    "balance",
    "balance_loss",
    "by_part",
    "coactivation",
    "conditional_information",
    "domain_divergence",
    "domain_information",
    "domain_specialization",
    "first_choice",
    "flips_by_margin",
    "flow",
    "functional_similarity",
    "gate_entropy",
    "gini",
    "join",
    "layer_weights",
    "load",
    "margins",
    "mass",
    "neighbor_order",
    "overlap",
    "pair_tokens",
    "part_labels",
    "repetition",
    "router_entropy",
    "row_similarity",
    "saturation",
    "shared_information",
    "standing_committee",
    "strongest_links",
    "token_mask",
    "top_tokens",
    "vocabulary_specialization",
]
