"""Expert parallelism: every device serves the experts that it holds, and one sum over the devices joins the results.

A token's activation is small (D numbers) and an expert is large, so activations travel and experts stay. No token is
dropped and no capacity is set: each device sees all tokens of its slice of the batch, multiplies those that chose its
experts, and adds nothing for the others.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float

from gptoss_jax.batched import batched
from gptoss_jax.config import ModelConfig
from gptoss_jax.experts import Experts, ExpertWeights, moe
from gptoss_jax.mxfp4 import MXArray
from gptoss_jax.router import Routing
from gptoss_jax.sharding.layout import MODEL_AXES, spec

LEAVES = ("gate_up_blocks", "gate_up_scales", "gate_up_bias", "down_blocks", "down_scales", "down_bias")


@dataclasses.dataclass(frozen=True)
class ExpertParallel:
    """A dispatch for `GptOss.run` over the devices of a mesh.

    Attributes:
      mesh: of `make_mesh`.
      at_once: each device serves its pairs as `batched` does; by default on all but CPUs.
    """

    config: ModelConfig
    mesh: Mesh
    at_once: bool | None = None

    def __call__(self, x_TD: Float[Array, "T D"], routing: Routing, experts: Experts, layer: Any) -> Array:
        """Sum over the chosen experts of weight times output; arguments as `model.Mlp` has them."""
        leaves = {name: getattr(experts, name)[...] for name in LEAVES}
        cuts = {name: spec(f"blocks.mlp.experts.{name}") for name in LEAVES}
        rows = PartitionSpec("data" if len(x_TD) % self.mesh.shape["data"] == 0 else None)
        serve = jax.shard_map(
            self._serve,
            mesh=self.mesh,
            in_specs=(rows, rows, rows, cuts, PartitionSpec()),
            out_specs=rows,
            check_vma=False,  # the sum makes the result equal along expert and tensor
        )
        return serve(x_TD, routing.experts, routing.weights, leaves, jnp.asarray(layer))

    def _serve(self, x_TD: Array, experts_TX: Array, weights_TX: Array, leaves: dict[str, Array], layer: Array):
        """On one device: `leaves` hold its experts [L, E / devices, ...] alone."""
        E = leaves["down_bias"].shape[1]
        slot = experts_TX - jax.lax.axis_index("expert") * E
        mine = (slot >= 0) & (slot < E)
        routing = Routing(weights_TX, jnp.where(mine, slot, E), jnp.where(mine, weights_TX, 0.0))
        if self.mesh.shape["tensor"] > 1:  # the parts of an expert are summed, so only one may add its bias
            first = jax.lax.axis_index("tensor") == 0
            leaves = leaves | {"down_bias": jnp.where(first, leaves["down_bias"], 0)}
        flat = {name: leaf.reshape(-1, *leaf.shape[2:]) for name, leaf in leaves.items()}
        weights = ExpertWeights(
            MXArray(flat["gate_up_blocks"], flat["gate_up_scales"]),
            flat["gate_up_bias"],
            MXArray(flat["down_blocks"], flat["down_scales"]),
            flat["down_bias"],
        )
        at_once = self.mesh.devices.flat[0].platform != "cpu" if self.at_once is None else self.at_once
        if at_once:
            y_TD = batched(x_TD, routing, weights, self._part(), layer * E)
        else:  # `scan` skips the experts that no token chose: a device reads none of the others' share
            y_TD = moe(x_TD, routing, weights, self._part(), layer * E, "scan")
        return jax.lax.psum(y_TD.astype(jnp.float32), MODEL_AXES).astype(x_TD.dtype)

    def _part(self) -> ModelConfig:
        E = self.config.num_experts // self.mesh.shape["expert"]
        F = self.config.intermediate_size // self.mesh.shape["tensor"]
        X = min(self.config.experts_per_token, E)
        return dataclasses.replace(self.config, num_experts=E, intermediate_size=F, experts_per_token=X)
