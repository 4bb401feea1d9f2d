"""Writing: complete under its name or absent, the published files to the byte, little memory."""

import dataclasses
import errno
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from checkpoint_cases import leaves, read_tensors, same, writable_copy, write_tensors

from gptoss_jax import mxfp4
from gptoss_jax.checkpoint import CheckpointError, convert, load, open_checkpoint, save, synthesize, writing
from gptoss_jax.checkpoint.files import INDEX
from gptoss_jax.checkpoint.names import table
from gptoss_jax.checkpoint.writing import FolderWriter, shards, write_folder
from gptoss_jax.config import GPT_OSS_20B, GPT_OSS_120B, TINY, ConfigError

# Sizes of the files of huggingface.co/openai/gpt-oss-20b, and the sha256 of its index
PUBLISHED_SIZES = {
    "model-00000-of-00002.safetensors": 4_792_272_488,
    "model-00001-of-00002.safetensors": 4_798_702_184,
    "model-00002-of-00002.safetensors": 4_170_342_232,
}
PUBLISHED_INDEX = "0e085b977c4c9942f85938828e8c989ed7d5cdabf852e4da6a67c116cd502cd1"


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def everything_in(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def test_gpt_oss_20b_has_the_published_files(tmp_path):
    """Names, shapes, shards, headers and index: a sparse folder, for the data are left out."""
    FolderWriter(tmp_path, GPT_OSS_20B, "huggingface")
    sizes = {path.name: path.stat().st_size for path in tmp_path.glob("*.safetensors")}
    assert sizes == PUBLISHED_SIZES
    assert sha256(tmp_path / INDEX) == PUBLISHED_INDEX
    assert json.loads((tmp_path / INDEX).read_text())["metadata"]["total_size"] == 13_761_264_768
    assert len(open_checkpoint(tmp_path).tensors) == 459


def test_gpt_oss_120b_has_the_published_number_of_files(tmp_path):
    names = [f"model-{i:05}-of-00014.safetensors" for i in range(15)]
    assert list(shards(table(GPT_OSS_120B, "huggingface"), "huggingface")) == names
    assert len(shards(table(GPT_OSS_120B, "original"), "original")) > 1
    assert list(shards(table(GPT_OSS_20B, "original"), "original")) == ["model.safetensors"]


@pytest.mark.parametrize("layout", ["huggingface", "original"])
def test_many_shards(monkeypatch, golden_folder, tmp_path, layout):
    monkeypatch.setitem(writing.SHARD_BYTES, layout, 150_000)
    target = convert(golden_folder / "small", tmp_path / "many", layout)
    assert len(list(target.glob("*.safetensors"))) > 8
    assert same(load(target)[0], load(golden_folder / "small")[0])


@pytest.mark.parametrize("name", ["small", "wide"])
def test_convert_there_and_back(golden_folder, tmp_path, name):
    there = convert(golden_folder / name, tmp_path / "there", "original")
    assert sha256(there / "model.safetensors") == sha256(golden_folder / name / "original" / "model.safetensors")
    back = convert(there, tmp_path / "back", "huggingface")
    saved = read_tensors(back / "model.safetensors")
    for file in (golden_folder / name).glob("*.safetensors"):
        for tensor, value in read_tensors(file).items():
            assert saved[tensor] == value, tensor


def dequantized_copy(source, target, dtype):
    """The checkpoint as the community spreads it: experts as plain matrices [E, in, out], in one file."""
    folder = writable_copy(source, target)
    kind = {"BF16": ml_dtypes.bfloat16, "F32": np.float32, "F16": np.float16}[dtype]
    tensors = {}
    for file in folder.glob("*.safetensors"):
        tensors |= read_tensors(file)
        file.unlink()
    (folder / INDEX).unlink()
    for name in [name for name in tensors if name.endswith("_blocks")]:
        _, shape, blocks = tensors.pop(name)
        _, _, scales = tensors.pop(name.replace("_blocks", "_scales"))
        blocks, scales = np.frombuffer(blocks, np.uint8).reshape(shape), np.frombuffer(scales, np.uint8)
        values = mxfp4.dequantize(blocks, scales.reshape(shape[:-1])).swapaxes(1, 2)
        data = np.ascontiguousarray(values).astype(kind).tobytes()
        tensors[name.removesuffix("_blocks")] = (dtype, list(values.shape), data)
    fields = json.loads((folder / "config.json").read_text())
    del fields["quantization_config"]
    (folder / "config.json").write_text(json.dumps(fields))
    write_tensors(folder / "model.safetensors", tensors)
    return folder


def test_dequantized_experts_are_refused_with_advice(golden_folder, tmp_path):
    folder = dequantized_copy(golden_folder / "small", tmp_path / "bf16", "BF16")
    with pytest.raises(CheckpointError, match=r"dequantized.*gptoss-jax convert"):
        load(folder)


@pytest.mark.parametrize("dtype", ["BF16", "F32"])
def test_dequantized_experts_are_packed_without_loss(golden_folder, tmp_path, dtype):
    """hidden != intermediate here, and a transposed square matrix would change the values: both are caught."""
    folder = dequantized_copy(golden_folder / "small", tmp_path / "plain", dtype)
    packed, _ = load(convert(folder, tmp_path / "packed"), "float32")
    source, _ = load(golden_folder / "small", "float32")
    a, b = leaves(packed), leaves(source)
    for kind in ("gate_up", "down"):
        names = [f"blocks.mlp.experts.{kind}_{part}" for part in ("blocks", "scales")]
        values = [mxfp4.dequantize(*(arrays[name] for name in names)) for arrays in (a, b)]
        assert (values[0] == values[1]).all()
    assert all(
        (a[leaf] == b[leaf]).all() for leaf in a if "experts.gate_up_" not in leaf and "experts.down_" not in leaf
    )


def test_dequantized_experts_of_a_wrong_shape(golden_folder, tmp_path):
    folder = dequantized_copy(golden_folder / "small", tmp_path / "plain", "BF16")
    tensors = read_tensors(folder / "model.safetensors")
    name = "model.layers.1.mlp.experts.down_proj"
    dtype, shape, data = tensors[name]
    tensors[name] = (dtype, [shape[0], shape[2], shape[1]], data)
    write_tensors(folder / "model.safetensors", tensors)
    with pytest.raises(CheckpointError, match=name):
        convert(folder, tmp_path / "packed")
    assert not (tmp_path / "packed").exists()


def test_convert_rounds_other_floats_to_bfloat16(golden_folder, tmp_path):
    folder = writable_copy(golden_folder / "small" / "original", tmp_path / "f32")
    tensors = read_tensors(folder / "model.safetensors")
    wide = {
        name: ("F32", shape, np.frombuffer(data, ml_dtypes.bfloat16).astype(np.float32).tobytes())
        if dtype == "BF16"
        else (dtype, shape, data)
        for name, (dtype, shape, data) in tensors.items()
    }
    write_tensors(folder / "model.safetensors", wide)
    with pytest.raises(CheckpointError, match="dtype F32"):
        load(folder)
    target = convert(folder, tmp_path / "bf16", "original")
    assert sha256(target / "model.safetensors") == sha256(golden_folder / "small" / "original" / "model.safetensors")


def test_convert_takes_the_tokenizer_along(golden_folder, tmp_path):
    folder = writable_copy(golden_folder / "small", tmp_path / "s")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "notes.txt").write_text("left behind")
    assert everything_in(convert(folder, tmp_path / "t")) == ["config.json", "model.safetensors", "tokenizer.json"]


def test_convert_refuses_what_load_refuses(golden_folder, tmp_path):
    folder = writable_copy(golden_folder / "small" / "original", tmp_path / "o")
    tensors = read_tensors(folder / "model.safetensors")
    del tensors["norm.scale"]
    write_tensors(folder / "model.safetensors", tensors)
    with pytest.raises(CheckpointError, match=r"'norm.scale' is missing"):
        convert(folder, tmp_path / "t")
    assert everything_in(tmp_path) == ["o"]


def test_original_layout_cannot_express_other_layer_types(tmp_path):
    config = dataclasses.replace(TINY, layer_types=("full_attention",) * 4)
    with pytest.raises(ConfigError, match="alternate"):
        synthesize(config, tmp_path / "t", layout="original")
    assert everything_in(tmp_path) == []


def test_synthetic_checkpoint_is_a_function_of_the_seed(tmp_path):
    a = synthesize("tiny", tmp_path / "a", 7)
    b = synthesize("tiny", tmp_path / "b", 7, layout="original")
    c = synthesize("tiny", tmp_path / "c", 8)
    assert same(load(a)[0], load(b)[0])
    assert open_checkpoint(a).fingerprint() != open_checkpoint(c).fingerprint()
    assert json.loads((a / "synthetic.json").read_text())["seed"] == 7


def test_synthetic_weights_use_every_code_and_give_finite_logits(tmp_path):
    model, _ = load(synthesize("tiny", tmp_path / "t"), "float32")
    arrays = leaves(model)
    blocks = arrays["blocks.mlp.experts.gate_up_blocks"]
    assert np.bincount(blocks.reshape(-1), minlength=256).min() > 0
    assert set(np.unique(arrays["blocks.mlp.experts.down_scales"])) == {119, 120, 121}
    assert len({blocks[n, e].tobytes() for n in range(4) for e in range(8)}) == 32
    assert arrays["blocks.attention.qkv.weight"].std() == pytest.approx(0.02, rel=0.05)
    assert arrays["norm.scale"].mean() == pytest.approx(1, abs=0.02)
    logits = np.asarray(model(np.arange(40)))
    assert np.isfinite(logits).all() and 0.05 < logits.std() < 5


@pytest.mark.parametrize(("preset", "seed", "word"), [("gpt-oss-7b", 0, "gpt-oss-20b"), ("tiny", -1, "seed")])
def test_synthesize_refuses(tmp_path, preset, seed, word):
    with pytest.raises(CheckpointError, match=word):
        synthesize(preset, tmp_path / "t", seed)
    assert everything_in(tmp_path) == []


@pytest.mark.parametrize("layout", ["hf", "", None])
def test_unknown_layout(tmp_path, layout):
    with pytest.raises(CheckpointError, match="layout"):
        synthesize("tiny", tmp_path / "t", layout=layout)
    assert everything_in(tmp_path) == []


def test_target_exists(golden_folder, tmp_path):
    target = tmp_path / "t"
    target.mkdir()
    synthesize("tiny", target)  # an empty folder is as good as none
    before = open_checkpoint(target).fingerprint()
    with pytest.raises(CheckpointError, match=r"not empty.*overwrite"):
        synthesize("tiny", target, 1)
    assert open_checkpoint(target).fingerprint() == before
    synthesize("tiny", target, 1, overwrite=True)
    assert open_checkpoint(target).fingerprint() != before
    assert everything_in(tmp_path) == ["t"]


def test_target_is_a_file(tmp_path):
    (tmp_path / "t").write_text("precious")
    with pytest.raises(CheckpointError, match="not a folder"):
        synthesize("tiny", tmp_path / "t", overwrite=True)
    assert (tmp_path / "t").read_text() == "precious"


def test_convert_onto_itself(golden_folder, tmp_path):
    folder = writable_copy(golden_folder / "small", tmp_path / "s")
    with pytest.raises(CheckpointError, match="same folder"):
        convert(folder, folder, overwrite=True)
    assert same(load(folder)[0], load(golden_folder / "small")[0])


def test_disk_too_small_is_said_before_writing(tmp_path):
    free = __import__("shutil").disk_usage(tmp_path).free
    config = dataclasses.replace(GPT_OSS_120B, num_layers=36 * (1 + free // 60_000_000_000), layer_types=())
    with pytest.raises(CheckpointError, match=r"needs .* GiB, .* are free"):
        synthesize(config, tmp_path / "t")
    assert everything_in(tmp_path) == []


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", ["synthesize", "convert", "save"])
def test_disk_fills_up_while_writing(monkeypatch, golden_folder, tmp_path, kind, overwrite):
    """The disk is full at the 30th tensor: the target is as it was, and nothing else is left."""
    source = golden_folder / "small"
    model, _ = load(source)
    target = tmp_path / "t"
    if overwrite:
        synthesize("tiny", target)
    before = {path.name: path.read_bytes() for path in target.iterdir()} if overwrite else None
    calls = []
    write = FolderWriter.write

    def full(self, part, values, first=0):
        calls.append(part)
        if len(calls) == 30:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, part, values, first)

    monkeypatch.setattr(FolderWriter, "write", full)
    with pytest.raises(CheckpointError, match=r"disk is full.*Nothing was left behind"):
        if kind == "save":
            save(model, target, overwrite=overwrite)
        elif kind == "convert":
            convert(source, target, overwrite=overwrite)
        else:
            synthesize("tiny", target, 3, overwrite=overwrite)
    assert everything_in(tmp_path) == (["t"] if overwrite else [])
    if before:
        assert {path.name: path.read_bytes() for path in target.iterdir()} == before


def test_file_size_limit_of_the_system(tmp_path):
    """A real refusal by the kernel, not a staged one."""
    script = f"""
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
from gptoss_jax.checkpoint import CheckpointError, synthesize
try:
    synthesize("tiny", {str(tmp_path / "t")!r})
except CheckpointError as error:
    sys.exit(0 if "cannot be written" in str(error) else 1)
sys.exit(2)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
    assert everything_in(tmp_path) == []


def test_interrupted_by_the_keyboard(tmp_path):
    with pytest.raises(KeyboardInterrupt), write_folder(tmp_path / "t", TINY, "original") as writer:
        assert writer.folder.exists()
        raise KeyboardInterrupt
    assert everything_in(tmp_path) == []


def test_killed_then_run_again(tmp_path):
    """A killed process leaves the target absent; the next run starts clean and completes it."""
    script = f"""
import time
from gptoss_jax.checkpoint import synthesize
from gptoss_jax.checkpoint.writing import FolderWriter
write = FolderWriter.write
def slow(*args):
    write(*args)
    time.sleep(0.05)
FolderWriter.write = slow
synthesize("tiny", {str(tmp_path / "t")!r}, 5)
"""
    process = subprocess.Popen([sys.executable, "-c", script])
    partial = tmp_path / ".t.partial" / "model.safetensors"
    while not partial.exists():
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert everything_in(tmp_path) == [".t.partial"]
    synthesize("tiny", tmp_path / "t", 5)
    assert everything_in(tmp_path) == ["t"]
    assert same(load(tmp_path / "t")[0], load(synthesize("tiny", tmp_path / "u", 5))[0])


@pytest.mark.slow
def test_memory_stays_small(tmp_path):
    """Half a gigabyte is written, and converted, within 250 MB over the interpreter's own."""
    layers = dataclasses.replace(GPT_OSS_20B, num_layers=1, layer_types=(), vocab_size=10_000, num_tokens=10_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    synthesize(layers, tmp_path / "a")
    convert(tmp_path / "a", tmp_path / "b", "original")
    assert sum(path.stat().st_size for path in (tmp_path / "b").iterdir()) > 500_000_000
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < 250_000_000
