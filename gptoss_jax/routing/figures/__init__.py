"""Every routing figure, drawn from arrays alone: nothing here computes a metric.

Each function returns a `Drawing` (a matplotlib figure, its alt text and a one-sentence summary) or, where there is
token text, a `Markup` (HTML and a summary).
"""

from gptoss_jax.routing.figures.causes import (
    attention_map,
    attribution_map,
    head_map,
    load_against_effect,
    logit_lens_map,
)
from gptoss_jax.routing.figures.domains import divergence_map, flow_map, specialization_map
from gptoss_jax.routing.figures.drawing import Drawing, FigureError
from gptoss_jax.routing.figures.formats import block_errors, code_points, scale_histogram
from gptoss_jax.routing.figures.layers import balance_panels, committee_map, flip_maps, layer_spread, layer_values
from gptoss_jax.routing.figures.maps import (
    ablation_map,
    coactivation_map,
    load_map,
    mass_map,
    part_maps,
    similarity_map,
    token_expert_map,
    token_layer_map,
)
from gptoss_jax.routing.figures.text import Markup, lens_table, token_text, top_token_table

__all__ = [
    "Drawing",
    "FigureError",
    "Markup",
    "ablation_map",
    "attention_map",
    "attribution_map",
    "balance_panels",
    "block_errors",
    "coactivation_map",
    "code_points",
    "committee_map",
    "divergence_map",
    "flip_maps",
    "flow_map",
    "head_map",
    "layer_spread",
    "layer_values",
    "lens_table",
    "load_against_effect",
    "load_map",
    "logit_lens_map",
    "mass_map",
    "part_maps",
    "scale_histogram",
    "similarity_map",
    "specialization_map",
    "token_expert_map",
    "token_layer_map",
    "token_text",
    "top_token_table",
]
