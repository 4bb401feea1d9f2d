"""The layout for CPUs: the same bytes, the same values, the same routing."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx

import gptoss_jax as gj
from gptoss_jax import lanes
from gptoss_jax.checkpoint import arranging
from gptoss_jax.config import TINY
from gptoss_jax.experts import FEW, Experts, ExpertWeights, moe
from gptoss_jax.model import GptOss, Record, prepare, run_recorded
from gptoss_jax.mxfp4 import dequantize
from gptoss_jax.router import Routing

GOLDEN = Path(__file__).parent / "parity" / "golden"
RNG = np.random.default_rng(0)


def packed(rows=24, groups=3, lead=(2,)):
    blocks = RNG.integers(0, 256, (*lead, rows, groups, 16), dtype=np.uint8)
    scales = RNG.integers(100, 150, (*lead, rows, groups)).astype(np.uint8)
    return blocks, scales


def as_lanes(blocks, scales):
    words = jnp.asarray(np.ascontiguousarray(lanes.arrange("x_blocks", blocks)))
    return lanes.PackedLanes(words, jnp.asarray(np.ascontiguousarray(lanes.arrange("x_scales", scales))))


def test_every_code_in_every_place_is_exact():
    words = np.arange(2**16, dtype=np.uint16)
    blocks = np.zeros((2**16 // 8, 1, 16), np.uint8)
    blocks[:] = words.view(np.uint8).reshape(-1, 1, 16)
    expected = dequantize(blocks, np.full((len(blocks), 1), 127, np.uint8), np.float32).reshape(-1, 4)
    values = np.stack(jax.jit(lanes.unpack)(jnp.asarray(words)), axis=-1) * 2.0**14
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(np.signbit(values), np.signbit(expected))


@pytest.mark.parametrize("tokens", [1, 2, 3, 17])
def test_dequantization_is_bit_exact_through_the_product(tokens):
    """Multiplied with unit vectors, every product is one weight: no rounding, over the scales that are allowed."""
    blocks, scales = packed(lead=(2,))
    scales[1, 0], scales[1, 1] = lanes.SCALES
    expected = dequantize(blocks[1], scales[1], np.float32)
    x = np.eye(96, dtype=np.float32)
    multiply = jax.jit(lambda w, x: w[1].multiply(x))
    for first in range(0, 96, tokens):
        rows = x[first : first + tokens]
        np.testing.assert_array_equal(multiply(as_lanes(blocks, scales), rows), expected.T[first : first + tokens])


@pytest.mark.parametrize("tokens", [1, 5])
@pytest.mark.parametrize("outputs", [7, 384, 900])
def test_dense_product(tokens, outputs):
    weight = RNG.standard_normal((3, outputs, 64)).astype(ml_dtypes.bfloat16)
    bits = np.ascontiguousarray(lanes.arrange("blocks.attention.qkv.weight", weight))
    assert bits.dtype == np.uint16 and bits.shape == (3, 64, outputs)
    x = RNG.standard_normal((2, tokens, 64)).astype(np.float32)
    y = jax.jit(lambda b, x: lanes.DenseLanes(b, 2).multiply(x))(bits, x)
    np.testing.assert_allclose(y, x @ weight[2].astype(np.float32).T, rtol=1e-5, atol=1e-5)


def test_nothing_is_copied_when_a_layer_is_chosen():
    bits = jax.ShapeDtypeStruct((8, 256, 1024), jnp.uint16)
    compiled = jax.jit(lambda b, n, x: lanes.DenseLanes(b, n).multiply(x)).lower(bits, 1, jnp.ones((1, 256))).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 256 * 1024


@pytest.mark.parametrize(
    "leaf", ["x_blocks", "x_scales", "embedding.weight", "unembedding.weight", "a.bias", "b.weight"]
)
def test_restore_gives_the_bytes_of_the_checkpoint(leaf):
    blocks, scales = packed(lead=(2, 3))
    array = {"x_blocks": blocks, "x_scales": scales}.get(leaf)
    if array is None:
        array = RNG.standard_normal((2, 32, 48)).astype(ml_dtypes.bfloat16)
    there = np.ascontiguousarray(lanes.arrange(leaf, array))
    assert there.shape == lanes.arranged_shape(leaf, array.shape) and there.dtype == lanes.arranged_dtype(leaf)
    back = lanes.restore(leaf, there)
    assert back.dtype == array.dtype and back.tobytes() == array.tobytes()


def test_a_scale_outside_the_range_is_refused():
    _, scales = packed()
    scales[1, 2, 1] = 255
    with pytest.raises(ValueError, match=r"x_scales: scale byte 255 .*lanes=False"):
        lanes.arrange("x_scales", scales)


@pytest.mark.parametrize("name", ["small", "wide"])
def test_golden_checkpoints_route_alike(name):
    plain, _ = gj.load(GOLDEN / name, dtype="float32")
    laned, _ = gj.load(GOLDEN / name, lanes=True)
    assert lanes.is_arranged(laned) and not lanes.is_arranged(plain)
    assert laned.dtype == jnp.float32
    tokens = np.load(GOLDEN / name / "tokens.npy").reshape(-1)
    _, padded, counts = prepare(plain.config, tokens)
    seen = []
    for model in (plain, laned):
        output, logits = run_recorded(model, jnp.asarray(padded), jnp.asarray(counts), record=Record(routing=True))
        seen.append((output.routing.experts[:, :, : len(tokens)], logits[:, : len(tokens)]))
    np.testing.assert_array_equal(seen[0][0], seen[1][0])
    np.testing.assert_allclose(seen[0][1], seen[1][1], atol=1e-4)
    assert list(gj.generate(plain, tokens[:9].tolist(), 12)) == list(gj.generate(laned, tokens[:9].tolist(), 12))


@pytest.mark.parametrize(("piece", "block"), [(1, 1), (1000, 300), (1 << 13, 1 << 20)])
def test_reading_in_pieces_gives_the_layout_bit_for_bit(monkeypatch, piece, block):
    """Pieces of one row, of rows that do not divide the matrix, and of several layers of vectors."""
    monkeypatch.setattr(arranging, "_PIECE", piece)
    monkeypatch.setattr(arranging, "_BLOCK", block)
    checkpoint = gj.checkpoint.open_checkpoint(GOLDEN / "wide")
    plain, _ = gj.load(GOLDEN / "wide", dtype="bfloat16", lanes=False)
    lanes.arrange_model(plain)
    seen = []
    for path, variable in nnx.to_flat_state(nnx.state(plain)):
        leaf, expected = ".".join(map(str, path)), np.asarray(variable.get_value())
        found = arranging.read_arranged(checkpoint, leaf, seen.append)
        assert found.dtype == expected.dtype and found.shape == expected.shape
        assert found.tobytes() == expected.tobytes(), leaf
    assert sum(seen) == sum(tensor.nbytes for tensor in checkpoint.tensors.values())


def test_saving_a_laid_out_model_writes_the_bytes_it_was_read_from(tmp_path):
    model, _ = gj.load(GOLDEN / "small", lanes=True)
    gj.save(model, tmp_path / "again")
    for file in (GOLDEN / "small").glob("*.safetensors"):
        assert (tmp_path / "again" / file.name).exists() or len(list((tmp_path / "again").glob("*.safetensors"))) == 1
    one, _ = gj.load(GOLDEN / "small", dtype="bfloat16", lanes=False)
    two, _ = gj.load(tmp_path / "again", dtype="bfloat16", lanes=False)
    for a, b in zip(jax.tree.leaves(nnx.state(one)), jax.tree.leaves(nnx.state(two)), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    assert one.checkpoint_hash == two.checkpoint_hash


@pytest.mark.parametrize("dispatch", ["dense", "gather", "scan"])
def test_every_dispatch_takes_the_layout(dispatch):
    model = GptOss(TINY, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    tokens, counts = jnp.arange(12)[None], jnp.array([12])
    run = jax.jit(lambda model: model.run(tokens, counts, dispatch=dispatch).hidden)
    before = run(model)
    lanes.arrange_model(model)
    np.testing.assert_allclose(run(model), before, atol=1e-4)


def test_experts_with_few_tokens_and_with_many_agree_with_the_definition():
    """Loads of no token, as many as go one by one, one more, and more than a tile."""
    experts = Experts(TINY, stack=(1,), dtype=jnp.float32, rngs=nnx.Rngs(0))
    plain = experts.weights()
    pack = lambda weight: as_lanes(np.asarray(weight.blocks), np.asarray(weight.scales))
    laid = ExpertWeights(pack(plain.gate_up), plain.gate_up_bias, pack(plain.down), plain.down_bias)
    loads = [0, 1, FEW + 2, FEW + 3, FEW + 4, 19, 34, 0]  # the tile is 16: FEW + 2 is the most that goes one by one
    pairs = RNG.permutation(np.repeat(np.arange(len(loads)), loads))
    chosen, x = jnp.asarray(pairs[:, None]), jnp.float32(RNG.standard_normal((len(pairs), TINY.hidden_size)))
    weight = jnp.float32(RNG.uniform(0.1, 1, chosen.shape))
    routing = Routing(jnp.zeros((len(pairs), len(loads))), chosen, weight)
    config = dataclasses.replace(TINY, num_experts=len(loads))
    expected = moe(x, routing, plain, config, 0, "dense")
    np.testing.assert_allclose(moe(x, routing, laid, config, 0, "scan"), expected, atol=1e-6)
