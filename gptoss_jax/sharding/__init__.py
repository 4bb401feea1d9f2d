"""Several devices: the mesh, what lies where, how tokens reach the experts, and what it costs."""

from gptoss_jax.sharding.dispatch import ExpertParallel
from gptoss_jax.sharding.layout import AXES, MeshError, check_mesh, make_mesh, sharding_of, spec
from gptoss_jax.sharding.placement import Placement, make_cache, shard
from gptoss_jax.sharding.plan import MESHES_120B, Plan, plan, table

__all__ = [
    "AXES",
    "MESHES_120B",
    "ExpertParallel",
    "MeshError",
    "Placement",
    "Plan",
    "check_mesh",
    "make_cache",
    "make_mesh",
    "plan",
    "shard",
    "sharding_of",
    "spec",
    "table",
]
