"""Several devices: the mesh, what lies where, how tokens reach the experts, and what it costs."""

from gptoss_jax.sharding.dispatch import ExpertParallel
from gptoss_jax.sharding.layout import AXES, SPECS, MeshError, cache_spec, check_mesh, make_mesh, sharding_of, spec
from gptoss_jax.sharding.placement import Placement, make_cache, shard
from gptoss_jax.sharding.plan import MESHES_120B, Plan, plan, plan_weights, table

__all__ = [
    "AXES",
    "MESHES_120B",
    "SPECS",
    "ExpertParallel",
    "MeshError",
    "Placement",
    "Plan",
    "cache_spec",
    "check_mesh",
    "make_cache",
    "make_mesh",
    "plan",
    "plan_weights",
    "shard",
    "sharding_of",
    "spec",
    "table",
]
