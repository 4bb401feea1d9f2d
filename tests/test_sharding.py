"""Several devices: the same numbers as on one, each device holding what the plan says, and every bad mesh refused."""

import os
import re
import runpy
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from devices_worker import GOLDEN, MAX_LEN, NEW_TOKENS, PROMPTS, run

from gptoss_jax import roofline, sharding
from gptoss_jax.checkpoint import CheckpointError, load, placing
from gptoss_jax.config import GPT_OSS_20B, GPT_OSS_120B, TINY
from gptoss_jax.decoding import generate

MESHES = [(2, 2, 2), pytest.param((1, 8, 1), marks=pytest.mark.slow)]  # data, expert, tensor
ROOT = Path(__file__).parents[1]


def start(out: Path, sizes: tuple[int, ...], devices: int, *process: int) -> subprocess.Popen:
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, str(ROOT / "tests" / "devices_worker.py"), str(out), *map(str, (*sizes, *process))]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(worker: subprocess.Popen) -> str:
    text, _ = worker.communicate(timeout=500)
    assert worker.returncode == 0, text[-4000:]
    return text


@pytest.fixture(scope="module")
def alone():
    model, _ = load(GOLDEN, dtype="float32")
    written = list(generate(model, PROMPTS[0].tolist(), NEW_TOKENS, max_len=MAX_LEN))
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(model))
    return {
        "config": model.config,
        "outputs": [np.asarray(array) for array in run(model)],
        "written": written,
        "whole": whole,
        "experts": sum(leaf.nbytes for leaf in jax.tree.leaves(model.blocks.mlp.experts)),
    }


def check(seen, text: str, sizes: tuple[int, int, int], alone: dict) -> None:
    """What one process saw against the run on one device."""
    logits, experts, weights = alone["outputs"]
    assert np.abs(seen["logits"] - logits).max() < 1e-4
    np.testing.assert_array_equal(seen["experts"], experts)
    np.testing.assert_allclose(seen["weights"], weights, atol=1e-5)
    assert seen["written"].tolist() == alone["written"]
    assert (seen["held"] <= 1.1 * seen["planned"]).all(), "bytes on a device exceed the plan"
    assert seen["held"].max() < 0.6 * alone["whole"]  # in float32 the dense half of this small model is most of it
    assert len(re.findall("bytes of weights, planned", text)) == len(seen["held"])
    data, _, tensor = sizes
    config, rows = alone["config"], PROMPTS.size // data
    # activations travel, weights never: each sum is of one row of D numbers a token, and there are no others
    sums = 1 + config.num_layers * (1 + (tensor > 1))
    assert sorted(seen["summed"]) == [rows * config.hidden_size] * sums
    assert seen["moved"].max() <= rows * config.qkv_size


@pytest.mark.parametrize("sizes", MESHES, ids=str)
def test_eight_devices_compute_what_one_does(sizes, alone, tmp_path):
    text = finish(start(tmp_path / "seen.npz", sizes, 8))
    check(np.load(tmp_path / "seen.npz"), text, sizes, alone)


def test_two_processes_compute_what_one_device_does(alone, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    sizes = (1, 2, 2)
    workers = [start(tmp_path / f"{i}.npz", sizes, 2, i, 2, port) for i in (0, 1)]
    texts = [finish(worker) for worker in workers]
    for i, text in enumerate(texts):
        seen = np.load(tmp_path / f"{i}.npz")
        check(seen, text, sizes, alone)
        assert seen["read"] <= 2 * seen["planned"] < alone["whole"]  # the part of its two devices, not the model
        assert seen["experts_read"] == alone["experts"] / 2


def test_a_mesh_of_one_device_is_the_model_itself(alone):
    model, _ = load(GOLDEN, dtype="float32")
    spread = sharding.shard(model, sharding.make_mesh(devices=jax.devices()[:1]))
    for got, expected in zip(run(spread), alone["outputs"], strict=True):
        np.testing.assert_allclose(np.asarray(got), expected, atol=1e-5)


def test_every_named_array_exists_and_nothing_large_is_on_every_device():
    sizes = sharding.plan_weights(GPT_OSS_120B, "bfloat16")
    assert set(sharding.SPECS) <= set(sizes)
    for leaf, (shape, itemsize) in sizes.items():
        if leaf not in sharding.SPECS:
            assert np.prod(shape) * itemsize < 40e6, leaf


def test_plan_of_one_device_is_the_checkpoint():
    for config in (GPT_OSS_20B, GPT_OSS_120B):
        one = sharding.plan(config, {})
        norms = 2 * roofline.parameters(config).norms  # held in float32, stored in bfloat16
        assert sum(one.weights.values()) == roofline.checkpoint_bytes(config) + norms
        assert one.cache == roofline.cache_bytes(config, 4096)
        assert not any(one.traffic.values())
        assert one.devices == 1


def test_plan_of_120b_on_published_machines():
    limits = {"1 x 80 GB": 80e9, "4 x 24 GB": 24e9, "8 devices": 24e9, "64 devices": 12e9}
    for machine, meshes in sharding.MESHES_120B.items():
        for sizes in meshes:
            one = sharding.plan(GPT_OSS_120B, dict(zip(sharding.AXES, sizes, strict=True)))
            assert one.memory < limits[machine], (machine, sizes)
            assert one.devices == {"1 x 80 GB": 1, "4 x 24 GB": 4, "8 devices": 8, "64 devices": 64}[machine]
    text = sharding.table(GPT_OSS_120B, sharding.MESHES_120B)
    assert len(text.splitlines()) == 2 + sum(map(len, sharding.MESHES_120B.values()))


def test_the_plan_is_a_command(monkeypatch, capsys):
    def command(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["devices.py", *words])
        runpy.run_path(str(ROOT / "benchmarks" / "devices.py"), run_name="__main__")
        return capsys.readouterr().out

    assert command() == sharding.table(GPT_OSS_120B, sharding.MESHES_120B) + "\n"
    assert len(command("20b", "--mesh", "1,4,2", "--batch", "8").splitlines()) == 3
    with pytest.raises(SystemExit, match="tensor = 4 does not divide"):
        command("20b", "--mesh", "1,1,4")
    with pytest.raises(SystemExit, match="--mesh takes 3 numbers"):
        command("20b", "--mesh", "4")


def test_traffic_by_hand():
    # 4 devices along expert, float32: every layer sums D numbers, 2 * 3/4 of their bytes leave each device
    one = sharding.plan(TINY, {"expert": 4}, dtype="float32")
    assert one.traffic["experts"] == 4 * (2 * 64 * 4 * 3 // 4)
    assert one.traffic["embedding"] == 2 * 64 * 4 * 3 // 4
    assert one.traffic["attention output"] == one.traffic["queries, keys, values"] == 0
    larger = sharding.plan(TINY, {"data": 2, "expert": 4}, dtype="float32", batch=2)
    assert larger.traffic == one.traffic and larger.weights == one.weights and larger.cache == one.cache


def test_the_cache_lies_on_the_mesh():
    model, _ = load(GOLDEN, dtype="float32")
    spread = sharding.shard(model, sharding.make_mesh(devices=jax.devices()[:1]))
    cache = sharding.make_cache(spread, 2, 32)
    assert cache.full_key.sharding.spec == sharding.cache_spec(spread.dispatch.mesh, 2)
    assert sharding.make_cache(model, 2, 32).full_key.shape == cache.full_key.shape


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ({"expert": 3}, r"expert = 3 does not divide num_experts = 32: choose one of 1, 2, 4, 8, 16, 32$"),
        ({"tensor": 16}, r"tensor = 16 does not divide num_key_value_heads = 8: choose one of 1, 2, 4, 8$"),
        ({"tensor": 4}, r"tensor = 4 does not divide groups of 32 hidden units = 90: choose one of 1, 2, 3, 5"),
        ({"model": 2}, r"the mesh has the axes .*'model'.* build it with sharding.make_mesh"),
    ],
)
def test_a_mesh_that_does_not_divide(shape, said):
    with pytest.raises(sharding.MeshError, match=said):
        sharding.plan(GPT_OSS_20B, shape)


def test_a_mesh_for_another_number_of_devices():
    count = 2 * len(jax.devices())
    with pytest.raises(sharding.MeshError, match=rf"expert {count} x tensor 1 needs {count} devices, there are"):
        sharding.make_mesh(expert=count)
    with pytest.raises(sharding.MeshError, match="mesh axis data must be a positive integer, not 0"):
        sharding.make_mesh(data=0)


def test_a_foreign_mesh_is_refused():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("x",))
    with pytest.raises(sharding.MeshError, match="axes"):
        load(GOLDEN, dtype="float32", mesh=mesh)


def test_weights_laid_out_for_one_cpu_are_refused():
    model, _ = load(GOLDEN, dtype="float32")
    model.embedding.weight.set_value(np.zeros((512, 192), np.uint16))
    with pytest.raises(sharding.MeshError, match="laid out for one CPU"):
        sharding.shard(model, sharding.make_mesh(devices=jax.devices()[:1]))


def test_the_layout_for_one_cpu_and_a_mesh_exclude_each_other():
    with pytest.raises(CheckpointError, match="lanes=True lays weights out for one CPU"):
        load(GOLDEN, lanes=True, mesh=sharding.make_mesh(devices=jax.devices()[:1]))


def test_a_large_array_reaches_an_accelerator_layer_by_layer():
    whole = np.arange(5 * 6 * 4, dtype=np.uint8).reshape(5, 6, 4)
    asked = []

    def read(index: tuple[slice, ...]) -> np.ndarray:
        asked.append(whole[index].shape)
        return whole[index]

    box = (slice(1, 4), slice(2, 6), slice(0, 4))
    stacks = placing._by_layers(read, box, np.uint8, [jax.devices()[0]] * 2)
    for stack in stacks:
        np.testing.assert_array_equal(stack, whole[box])
    assert asked == [(1, 4, 4)] * 3  # one layer at a time, read once for both devices


def test_too_little_memory_is_said_before_allocating(monkeypatch):
    monkeypatch.setattr(placing, "available_memory", lambda: 5 << 20)
    monkeypatch.setattr(placing, "place", lambda *args: pytest.fail("an array was allocated"))
    with pytest.raises(CheckpointError, match=r"need 6\.7 MiB of memory, 5\.0 MiB are available; use dtype bfloat16, "):
        load(GOLDEN, dtype="float32")


class Accelerator:
    """A device that says how much memory it has."""

    platform = "gpu"

    def __init__(self, limit: int):
        self.limit = limit

    def memory_stats(self) -> dict[str, int]:
        return {"bytes_limit": self.limit, "bytes_in_use": 1 << 20}


class OnAccelerators:
    """Stands for a sharding over two accelerators that halves every array."""

    addressable_devices = (Accelerator(4 << 20), Accelerator(3 << 20))

    def shard_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[:-1], shape[-1] // 2)


def test_too_little_memory_on_accelerators():
    arrays = {"blocks.mlp.experts.down_bias": jax.ShapeDtypeStruct((4, 256, 2048), jnp.bfloat16)}
    with pytest.raises(CheckpointError, match=r"need 2\.0 MiB on each of 2 devices, 1\.0 MiB") as error:
        where = {"blocks.mlp.experts.down_bias": OnAccelerators()}
        OnAccelerators.addressable_devices = (Accelerator(4 << 20), Accelerator(2 << 20))
        placing.check_memory("folder", arrays, where)
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION" in str(error.value) and "first_layers=2" in str(error.value)


def test_a_device_that_gets_more_than_its_plan_stops_the_load(monkeypatch):
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    placement = sharding.Placement(TINY, mesh, "float32")
    placement.plan.weights["norm.scale"] = 10
    with pytest.raises(sharding.MeshError, match=r"after norm\.scale, .* holds 256 bytes, planned were 10"):
        placement.count("norm.scale", jax.device_put(np.ones(64, np.float32)))
