"""The training network: the model's own functions on float weights, with experts computed in tiles.

The parameters are a flat dictionary whose names are the model's parameter paths, stacked over layers in the
checkpoint's ``[out, in]`` orientation; only the experts differ: they are float arrays ``gate_up [L, E, 2F, D]`` and
``down [L, E, D, F]`` until they are packed. No token is ever dropped: pairs of token and expert are sorted by expert
and laid out in tiles that each belong to one expert.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gptoss_jax import mxfp4
from gptoss_jax.attention import attention_mask, softmax_with_sink
from gptoss_jax.config import SLIDING, ModelConfig
from gptoss_jax.experts import swiglu
from gptoss_jax.norms import linear, rms_norm
from gptoss_jax.rope import rotary_table, rotate
from gptoss_jax.router import choose

Params = dict[str, Any]
GATE_UP, DOWN = "blocks.mlp.experts.gate_up", "blocks.mlp.experts.down"
PACKED = (GATE_UP, DOWN)


def init(config: ModelConfig, seed: int) -> Params:
    """Random weights: every matrix keeps the size of its input, outputs of a block start small."""
    c, rng = config, np.random.default_rng(seed)
    L, D, F, E, V = c.num_layers, c.hidden_size, c.intermediate_size, c.num_experts, c.vocab_size
    heads = c.num_attention_heads

    def matrix(*shape: int, gain: float = 1.0) -> np.ndarray:
        return rng.normal(0, gain * shape[-1] ** -0.5, shape).astype(np.float32)

    zeros = lambda *shape: np.zeros(shape, np.float32)
    small = 0.3
    return {
        "embedding.weight": rng.normal(0, 0.3, (V, D)).astype(np.float32),
        "blocks.attention.norm.scale": np.ones((L, D), np.float32),
        "blocks.attention.qkv.weight": matrix(L, c.qkv_size, D),
        "blocks.attention.qkv.bias": zeros(L, c.qkv_size),
        "blocks.attention.sinks": zeros(L, heads),
        "blocks.attention.out.weight": matrix(L, D, heads * c.head_dim, gain=small),
        "blocks.attention.out.bias": zeros(L, D),
        "blocks.mlp.norm.scale": np.ones((L, D), np.float32),
        "blocks.mlp.router.weight": matrix(L, E, D),
        "blocks.mlp.router.bias": zeros(L, E),
        GATE_UP: matrix(L, E, 2 * F, D),
        GATE_UP + "_bias": zeros(L, E, 2 * F),
        DOWN: matrix(L, E, D, F, gain=small),
        DOWN + "_bias": zeros(L, E, D),
        "norm.scale": np.ones(D, np.float32),
        "unembedding.weight": matrix(V, D),
    }


class Tiles(NamedTuple):
    """Where each (token, expert) pair is computed.

    Attributes:
      slot: int32 [T, X], row of every pair; one past the end for padding.
      pair: int32 [rows], pair of every row; one past the end for an empty row.
      expert: int32 [rows / tile], the expert of every tile.
    """

    slot: Any
    pair: Any
    expert: Any


def lay_out(experts_TX: Any, num_experts: int, tile: int) -> Tiles:
    """Sort the pairs by expert and round every expert's share up to whole tiles; expert id E marks padding."""
    T, X = experts_TX.shape
    E, flat = num_experts, experts_TX.reshape(-1)
    tiles = -(-T * X // tile) + E
    order = jnp.argsort(flat, stable=True)
    counts = jnp.sum(flat[:, None] == jnp.arange(E), axis=0)
    padded = -(-counts // tile) * tile
    ends = jnp.cumsum(padded)
    begins, starts = ends - padded, jnp.cumsum(counts) - counts
    expert = jnp.minimum(jnp.searchsorted(ends, jnp.arange(tiles) * tile, side="right"), E - 1)
    row = jnp.arange(tiles * tile)
    mine = jnp.repeat(expert, tile, total_repeat_length=tiles * tile)
    offset = row - begins[mine]
    filled = offset < counts[mine]
    pair = jnp.where(filled, order[jnp.minimum(starts[mine] + offset, T * X - 1)], T * X)
    position = jnp.argsort(order)  # of every pair among the sorted ones
    known = jnp.minimum(flat, E - 1)
    slot = jnp.where(flat < E, begins[known] + position - starts[known], tiles * tile)
    return Tiles(slot.reshape(T, X), pair, expert)


@jax.custom_vjp
def spread(x_TD: Any, slot_TX: Any, pair_R: Any) -> Any:
    """Rows for the tiles: the token of each pair, zero for an empty row. Its gradient is a gather, not a scatter."""
    return _take(x_TD, pair_R // slot_TX.shape[1])


@jax.custom_vjp
def collect(y_RD: Any, slot_TX: Any, pair_R: Any) -> Any:
    """Back from the tiles: the row of each pair, ``[T, X, D]``, zero for padding."""
    return _take(y_RD, slot_TX)


def _take(rows: Any, index: Any) -> Any:
    return jnp.take(rows, index, axis=0, mode="fill", fill_value=0)


def _spread_back(kept: Any, g_RD: Any) -> tuple[Any, None, None]:
    return _take(g_RD, kept[0]).sum(1), None, None


def _collect_back(kept: Any, g_TXD: Any) -> tuple[Any, None, None]:
    return _take(g_TXD.reshape(-1, g_TXD.shape[-1]), kept[1]), None, None


spread.defvjp(lambda x, slot, pair: (spread(x, slot, pair), (slot, pair)), _spread_back)
collect.defvjp(lambda y, slot, pair: (collect(y, slot, pair), (slot, pair)), _collect_back)


def experts_in_tiles(layer: Params, x_TD: Any, routing: Any, config: ModelConfig, tile: int) -> Any:
    """Every token through its chosen experts, weighted and summed."""
    D = x_TD.shape[-1]
    tiles = lay_out(routing.experts, config.num_experts, tile)
    # one expert's weights per tile, by a product with ones and zeros: its gradient is a product again
    own = jax.nn.one_hot(tiles.expert, config.num_experts, dtype=x_TD.dtype)

    def of_tile(name: str) -> Any:
        weight = layer[name].astype(x_TD.dtype)
        return (own @ weight.reshape(weight.shape[0], -1)).reshape(-1, *weight.shape[1:])

    rows = spread(x_TD, tiles.slot, tiles.pair).reshape(-1, tile, D)
    hidden = jnp.einsum("ntd,nfd->ntf", rows, of_tile(GATE_UP)) + of_tile(GATE_UP + "_bias")[:, None]
    active = swiglu(hidden, config.swiglu_limit, config.swiglu_alpha)
    out = jnp.einsum("ntf,ndf->ntd", active, of_tile(DOWN)) + of_tile(DOWN + "_bias")[:, None]
    pairs_TXD = collect(out.reshape(-1, D), tiles.slot, tiles.pair)
    return jnp.einsum("tx,txd->td", routing.weights.astype(x_TD.dtype), pairs_TXD)


class Blocks(NamedTuple):
    """How queries are grouped: `size` queries see the keys of their own and, in a sliding layer, the block before.

    Attributes:
      size: queries in a block; T where the layer is not a sliding one.
      mask: bool [B * blocks, size, keys].
    """

    size: int
    mask: Any


def _blocks(positions_BT: Any, segment_BT: Any, kind: str, window: int) -> Blocks:
    T = positions_BT.shape[1]
    local = kind == SLIDING and T % window == 0 and T > window
    size = window if local else T
    pick = lambda a: a.reshape(-1, size)
    spans = lambda a, fill: _two_blocks(a, size, fill) if local else a
    mask = attention_mask(pick(positions_BT), spans(positions_BT, -1), window if kind == SLIDING else None)
    return Blocks(size, mask & (pick(segment_BT)[:, :, None] == spans(segment_BT, -1)[:, None, :]))


def _two_blocks(a: Any, size: int, fill: int = 0) -> Any:
    """``[B, T, ...] -> [B * blocks, 2 * size, ...]``: every block with the one before it."""
    B, T = a.shape[:2]
    own = a.reshape(B, T // size, size, *a.shape[2:])
    before = jnp.concatenate([jnp.full_like(own[:, :1], fill), own[:, :-1]], axis=1)
    return jnp.concatenate([before, own], axis=2).reshape(-1, 2 * size, *a.shape[2:])


def attend_in_blocks(query_BTKGH: Any, key_BTKH: Any, value_BTKH: Any, sink_KG: Any, blocks: Blocks) -> Any:
    """`attention.attend` for training: sliding layers compute two windows of keys instead of all of them."""
    B, T, K, G, H = query_BTKGH.shape
    if blocks.size < T:
        key_BTKH, value_BTKH = (_two_blocks(a, blocks.size) for a in (key_BTKH, value_BTKH))
    n, t, s = blocks.mask.shape
    query = query_BTKGH.reshape(n, t, K, G, H).transpose(0, 2, 3, 1, 4).reshape(n * K, G * t, H)
    key, value = (a.transpose(0, 2, 1, 3).reshape(n * K, s, H) for a in (key_BTKH, value_BTKH))
    scores = jnp.einsum("nth,nsh->nts", query, key, preferred_element_type=jnp.float32) * H**-0.5
    scores = scores.reshape(n, K, G, t, s) + jnp.where(blocks.mask, 0.0, -1e30)[:, None, None]
    probs = softmax_with_sink(scores, jnp.broadcast_to(sink_KG[None, :, :, None], scores.shape[:-1]))
    mixed = jnp.einsum("nts,nsh->nth", probs.reshape(n * K, G * t, s).astype(value.dtype), value)
    return mixed.reshape(n, K, G, t, H).transpose(0, 3, 1, 2, 4).reshape(B, T, K, G, H)


class Output(NamedTuple):
    """What the training forward pass returns.

    Attributes:
      logits: float32 [B, T, V], or [N, V] of the wanted positions.
      experts: int32 [L, B * T, X]; E where the token is padding.
      load: float32 [L, E], share of the pairs that each expert served.
      balance: float32 [L], load-balancing loss of each layer, 1 where the load is even.
    """

    logits: Any
    experts: Any
    load: Any
    balance: Any


def forward(
    params: Params,
    tokens_BT: Any,
    segment_BT: Any,
    config: ModelConfig,
    dtype: Any = jnp.float32,
    tile: int = 64,
    load_LE: Any = None,
    wanted_N: Any = None,
) -> Output:
    """Logits and routing of packed rows.

    Args:
      params: float weights, as `init` names them.
      tokens_BT: token ids.
      segment_BT: number of the document or conversation within its row, -1 for padding; attention stays inside one.
      config: the model's numbers.
      dtype: of the activations.
      tile: rows that share one expert's weights.
      load_LE: each expert's share of the work in recent batches, for the balance; this batch's own if None.
      wanted_N: positions of the flattened batch whose logits are returned, as the unembedding is the costliest matrix;
        all of them if None.
    """
    B, T = tokens_BT.shape
    positions = jnp.broadcast_to(jnp.arange(T), (B, T))
    cos, sin = rotary_table(positions, config, dtype)
    blocks = {kind: _blocks(positions, segment_BT, kind, config.sliding_window) for kind in set(config.layer_types)}
    real = (segment_BT >= 0).reshape(-1)
    x = jnp.take(params["embedding.weight"], tokens_BT, axis=0).astype(dtype)
    K, G, H = config.num_key_value_heads, config.group_size, config.head_dim
    chosen, loads, balance = [], [], []
    for i, kind in enumerate(config.layer_types):
        p = {name.removeprefix("blocks."): value[i] for name, value in params.items() if name.startswith("blocks.")}
        y = rms_norm(x, p["attention.norm.scale"], config.rms_norm_eps)
        qkv = linear(y, p["attention.qkv.weight"], p["attention.qkv.bias"]).reshape(B, T, -1, H)
        query, key, value = jnp.split(qkv, [K * G, K * G + K], axis=2)
        query, key = rotate(query, cos, sin).reshape(B, T, K, G, H), rotate(key, cos, sin)
        mixed = attend_in_blocks(query, key, value, p["attention.sinks"].reshape(K, G), blocks[kind])
        x = x + linear(mixed.reshape(B, T, -1), p["attention.out.weight"], p["attention.out.bias"])
        y = rms_norm(x, p["mlp.norm.scale"], config.rms_norm_eps).reshape(B * T, -1)
        routing = choose(linear(y, p["mlp.router.weight"], p["mlp.router.bias"]), config.experts_per_token)
        routing = routing._replace(experts=jnp.where(real[:, None], routing.experts, config.num_experts))
        layer = {f"blocks.{name}": value for name, value in p.items()}
        x = x + experts_in_tiles(layer, y, routing, config, tile).reshape(x.shape)
        chosen.append(routing.experts)
        load, prob = shares(routing, real)
        loads.append(load)
        balance.append(config.num_experts * jnp.sum((load if load_LE is None else load_LE[i]) * prob))
    x = rms_norm(x, params["norm.scale"], config.rms_norm_eps)
    if wanted_N is not None:
        x = x.reshape(B * T, -1)[wanted_N]
    logits = linear(x, params["unembedding.weight"]).astype(jnp.float32)
    return Output(logits, jnp.stack(chosen), jnp.stack(loads), jnp.stack(balance))


def shares(routing: Any, real: Any) -> tuple[Any, Any]:
    """Each expert's share of the pairs, and its mean probability, over all tokens that are not padding.

    E times the product of the two, summed, is Switch Transformer's balancing loss (Fedus et al. 2021), 1 where even. It
    counts the whole batch, or with a running load many batches, and not each row: experts may then specialize in a
    kind of text as long as all kinds together keep them busy.
    """
    E, X = routing.logits.shape[-1], routing.experts.shape[-1]
    count = jnp.maximum(real.sum(), 1)
    load = jnp.sum(routing.experts[..., None] == jnp.arange(E), axis=(0, 1)) / (count * X)
    return load, jnp.sum(jax.nn.softmax(routing.logits, -1) * real[:, None], axis=0) / count


def cross_entropy(logits: Any, labels: Any) -> Any:
    """Natural-log loss of every label; a comparison instead of a lookup, whose gradient would be a scatter."""
    hit = jnp.arange(logits.shape[-1]) == labels[..., None]
    return jax.nn.logsumexp(logits, -1) - jnp.sum(jnp.where(hit, logits, 0.0), -1)


@functools.partial(jax.custom_jvp)
def fake_quantize(weight: Any) -> Any:
    """The nearest MXFP4 values, exactly what packing will store; the gradient passes straight through."""
    return mxfp4.quantize(weight).dequantize(weight.dtype)


fake_quantize.defjvp(lambda primals, tangents: (fake_quantize(*primals), tangents[0]))


def quantized(params: Params) -> Params:
    """The parameters with the experts rounded to MXFP4."""
    return params | {name: fake_quantize(params[name]) for name in PACKED}
