"""One gpt-oss block in plain NumPy float64, written from the published formulas and not from the package.

Weights are a dictionary in OpenAI's original names, without the ``block.N.`` prefix for a block.
"""

import numpy as np

CODES = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def unpack(blocks, scales):
    """[..., G, 16] bytes and [..., G] exponents -> [..., 32 G] float64."""
    out = np.empty((*blocks.shape, 2))
    for position, shift in ((0, 0), (1, 4)):  # low nibble first
        code = (blocks >> shift) & 15
        out[..., position] = CODES[code & 7] * np.where(code & 8, -1.0, 1.0)
    out = out.reshape(*scales.shape, 32) * np.exp2(scales.astype(np.float64) - 127)[..., None]
    return out.reshape(*scales.shape[:-1], -1)


def norm(x, scale):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * scale


def rope_frequencies(head_dim, theta, factor, context, fast, slow):
    half = head_dim // 2
    frequency = 1.0 / theta ** (2 * np.arange(half) / head_dim)
    edge = lambda turns: half * np.log(context / (turns * 2 * np.pi)) / np.log(theta)
    ramp = np.clip((np.arange(half) - edge(fast)) / (edge(slow) - edge(fast)), 0, 1)
    return frequency * (1 - ramp) + frequency / factor * ramp


def turn(x, angle, gain):
    half = x.shape[-1] // 2
    out = np.empty_like(x)
    cos, sin = np.cos(angle)[:, None] * gain, np.sin(angle)[:, None] * gain
    out[..., :half] = x[..., :half] * cos - x[..., half:] * sin
    out[..., half:] = x[..., half:] * cos + x[..., :half] * sin
    return out


def attention(x, w, c, sliding):
    T, H, K = len(x), c.head_dim, c.num_key_value_heads
    N = c.num_attention_heads
    qkv = norm(x, w["attn.norm.scale"]) @ w["attn.qkv.weight"].T + w["attn.qkv.bias"]
    q, k, v = np.split(qkv.reshape(T, N + 2 * K, H), [N, N + K], axis=1)
    angle = np.arange(T)[:, None] * rope_frequencies(
        H, c.rope_theta, c.rope_factor, c.rope_original_context, c.rope_beta_fast, c.rope_beta_slow
    )
    gain = 0.1 * np.log(c.rope_factor) + 1
    q, k = turn(q, angle, gain), turn(k, angle, gain)
    behind = np.arange(T)[:, None] - np.arange(T)
    hidden = (behind < 0) | (behind >= c.sliding_window if sliding else False)
    out = np.empty((T, N, H))
    for head in range(N):
        scores = q[:, head] @ k[:, head // (N // K)].T / np.sqrt(H)
        scores[hidden] = -np.inf
        weights = np.exp(np.concatenate([scores, np.full((T, 1), w["attn.sinks"][head])], axis=1))
        out[:, head] = (weights / weights.sum(1, keepdims=True))[:, :-1] @ v[:, head // (N // K)]
    return x + out.reshape(T, -1) @ w["attn.out.weight"].T + w["attn.out.bias"]


def experts(x, w, c):
    """Returns the new residual stream, router logits and chosen ids."""
    t = norm(x, w["mlp.norm.scale"])
    logits = t @ w["mlp.gate.weight"].T + w["mlp.gate.bias"]
    ids = np.argsort(-logits, axis=-1, kind="stable")[:, : c.experts_per_token]
    top = np.take_along_axis(logits, ids, axis=-1)
    weight = np.exp(top - top.max(-1, keepdims=True))
    weight /= weight.sum(-1, keepdims=True)
    out = x.copy()
    for e in np.unique(ids):
        rows, rank = np.nonzero(ids == e)
        up = unpack(w["mlp.mlp1_weight.blocks"][e], w["mlp.mlp1_weight.scales"][e])
        h = t[rows] @ up.T + w["mlp.mlp1_bias"][e]
        gate = np.minimum(h[:, 0::2], c.swiglu_limit)
        linear = np.clip(h[:, 1::2], -c.swiglu_limit, c.swiglu_limit)
        active = gate / (1 + np.exp(-1.702 * gate)) * (linear + 1)
        down = unpack(w["mlp.mlp2_weight.blocks"][e], w["mlp.mlp2_weight.scales"][e])
        out[rows] += weight[rows, rank][:, None] * (active @ down.T + w["mlp.mlp2_bias"][e])
    return out, logits, ids


def block(x, w, c, sliding):
    return experts(attention(x, w, c, sliding), w, c)


def random_block(rng, c):
    """Weights of one block, every number a float32; bytes over all 16 codes, scales in a narrow band."""
    D, F, E, N = c.hidden_size, c.intermediate_size, c.num_experts, c.num_attention_heads
    n = lambda *shape, std=0.02: std * rng.standard_normal(shape, np.float32)
    packed = lambda *shape: rng.integers(0, 256, shape, np.uint8)
    return {
        "attn.norm.scale": 1 + n(D, std=0.1),
        "attn.qkv.weight": n(c.qkv_size, D),
        "attn.qkv.bias": n(c.qkv_size, std=0.1),
        "attn.sinks": n(N, std=2.0),
        "attn.out.weight": n(D, N * c.head_dim),
        "attn.out.bias": n(D, std=0.1),
        "mlp.norm.scale": 1 + n(D, std=0.1),
        "mlp.gate.weight": n(E, D),
        "mlp.gate.bias": n(E, std=0.1),
        "mlp.mlp1_weight.blocks": packed(E, 2 * F, D // 32, 16),
        "mlp.mlp1_weight.scales": rng.integers(117, 121, (E, 2 * F, D // 32)).astype(np.uint8),
        "mlp.mlp1_bias": n(E, 2 * F, std=0.1),
        "mlp.mlp2_weight.blocks": packed(E, D, F // 32, 16),
        "mlp.mlp2_weight.scales": rng.integers(117, 121, (E, D, F // 32)).astype(np.uint8),
        "mlp.mlp2_bias": n(E, D, std=0.1),
    }


def install(model, blocks):
    """Put random blocks into a `GptOss`, stacked."""
    stack = lambda name: np.stack([w[name] for w in blocks])
    attention, mlp = model.blocks.attention, model.blocks.mlp
    places = {
        "attn.norm.scale": attention.norm.scale,
        "attn.qkv.weight": attention.qkv.weight,
        "attn.qkv.bias": attention.qkv.bias,
        "attn.sinks": attention.sinks,
        "attn.out.weight": attention.out.weight,
        "attn.out.bias": attention.out.bias,
        "mlp.norm.scale": mlp.norm.scale,
        "mlp.gate.weight": mlp.router.weight,
        "mlp.gate.bias": mlp.router.bias,
        "mlp.mlp1_weight.blocks": mlp.experts.gate_up_blocks,
        "mlp.mlp1_weight.scales": mlp.experts.gate_up_scales,
        "mlp.mlp1_bias": mlp.experts.gate_up_bias,
        "mlp.mlp2_weight.blocks": mlp.experts.down_blocks,
        "mlp.mlp2_weight.scales": mlp.experts.down_scales,
        "mlp.mlp2_bias": mlp.experts.down_bias,
    }
    for name, variable in places.items():
        variable.set_value(stack(name))
