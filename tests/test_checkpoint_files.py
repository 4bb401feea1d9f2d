"""Broken files: each is refused before a weight is read, and the message names the file and the tensor."""

import json
import struct

import numpy as np
import pytest
from checkpoint_cases import edit_header, edit_tensors, read_raw, writable_copy, write_raw
from safetensors.numpy import save_file

from gptoss_jax.checkpoint import CheckpointError, load, open_checkpoint
from gptoss_jax.checkpoint.files import read_folder, read_header
from gptoss_jax.config import ConfigError

FILE = "model-00001-of-00002.safetensors"
INDEX = "model.safetensors.index.json"
NAME = "model.layers.0.self_attn.sinks"
QUERY = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture
def folder(golden_folder, tmp_path):
    return writable_copy(golden_folder / "small", tmp_path / "small")


@pytest.fixture
def original(golden_folder, tmp_path):
    return writable_copy(golden_folder / "small" / "original", tmp_path / "original")


def refused(path, *words):
    """Opening and loading fail alike, and the message holds every word."""
    for attempt in (open_checkpoint, load):
        with pytest.raises((CheckpointError, ConfigError)) as caught:
            attempt(path)
        assert all(word in str(caught.value) for word in words), str(caught.value)


def test_reads_what_the_library_writes(tmp_path):
    arrays = {"b": np.arange(6, dtype=np.uint8).reshape(2, 3), "a": np.ones((), np.float32), "none": np.ones((0, 4))}
    save_file(arrays, tmp_path / "x.safetensors", metadata={"format": "pt"})
    found = read_header(tmp_path / "x.safetensors")
    assert {name: tensor.shape for name, tensor in found.items()} == {"b": (2, 3), "a": (), "none": (0, 4)}
    out = np.empty((2, 3), np.uint8)
    found["b"].read_into(out)
    assert (out == arrays["b"]).all()


def test_missing_folder(tmp_path):
    refused(tmp_path / "nowhere", "nowhere", "no such folder")


def test_a_file_instead_of_a_folder(folder):
    refused(folder / FILE, FILE, "give the folder")


def test_empty_folder(tmp_path):
    refused(tmp_path, str(tmp_path), "neither layout", "config.json")


def test_folder_whose_weights_lie_in_original(original, tmp_path):
    refused(tmp_path, "neither layout", str(original))


def test_neither_layout(tmp_path, folder):
    save_file({"transformer.h.0.attn.weight": np.ones(2, np.float32)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    refused(tmp_path, "neither layout", "transformer.h.0.attn.weight")


def test_no_config(folder):
    (folder / "config.json").unlink()
    refused(folder, "config.json", "no such file")


def test_config_that_cannot_be_run(folder):
    fields = json.loads((folder / "config.json").read_text())
    del fields["rope_scaling"]["truncate"]
    (folder / "config.json").write_text(json.dumps(fields))
    refused(folder, "config.json", "truncate")


@pytest.mark.parametrize("keep", [0, 5, 8, 100, 4000])
def test_cut_within_the_header(folder, keep):
    (folder / FILE).write_bytes((folder / FILE).read_bytes()[:keep])
    refused(folder, FILE, "declares a header", "again")


@pytest.mark.parametrize("lost", [1, 400_000])
def test_cut_within_the_data(folder, lost):
    blob = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(blob[:-lost])
    refused(folder, FILE, "pass the end", "model.layers.")


def test_longer_than_its_header_says(folder):
    with (folder / FILE).open("ab") as file:
        file.write(b"\0")
    refused(folder, FILE, "the header accounts for")


@pytest.mark.parametrize("length", [2**63, 10**9, 2**64 - 1])
def test_huge_header(folder, length):
    blob = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(struct.pack("<Q", length) + blob[8:])
    refused(folder, FILE, f"{length:,}")


@pytest.mark.parametrize("text", [b"not json", b"[1, 2]", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a": 1e999}'])
def test_header_that_is_no_table(folder, text):
    write_raw(folder / FILE, text, b"")
    refused(folder, FILE)


def test_git_lfs_pointer(folder):
    (folder / FILE).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    refused(folder, FILE, "git lfs pull")


def _move(header, name, by):
    header[name]["data_offsets"] = [offset + by for offset in header[name]["data_offsets"]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda h: _move(h, NAME, -2), ("overlaps",)),
        (lambda h: _move(h, NAME, 2), ("hole",)),
        (lambda h: h[NAME].update(shape=[5]), ("[5]", "10 bytes")),
        (lambda h: h[NAME].update(shape=[3]), ("[3]", "6 bytes")),
        (lambda h: h[NAME].update(shape=[2**62, 4]), ("data_offsets",)),
        (lambda h: h[NAME].update(shape=[10**30]), ("data_offsets",)),
        (lambda h: h[NAME].update(shape=[-4]), ("shape",)),
        (lambda h: h[NAME].update(shape="4"), ("shape",)),
        (lambda h: h[NAME].update(shape=[True, 4]), ("shape",)),
        (lambda h: h[NAME].update(dtype="Q4"), ("'Q4'",)),
        (lambda h: h[NAME].update(dtype=["BF16"]), ("dtype",)),
        (lambda h: h[NAME].update(data_offsets=[0, 2**70]), ("data_offsets",)),
        (lambda h: h[NAME].update(data_offsets=[8, 0]), ("data_offsets",)),
        (lambda h: h[NAME].update(data_offsets=[0]), ("data_offsets",)),
        (lambda h: h[NAME].pop("dtype"), ("needs dtype",)),
        (lambda h: h.update({NAME: 3}), ("needs dtype",)),
    ],
)
def test_corrupt_entry(folder, change, words):
    edit_header(folder / FILE, change)
    refused(folder, FILE, *words, "again")


def test_tensor_named_twice(folder):
    header, data = read_raw(folder / FILE)
    text = json.dumps(header)[:-1] + f', "{NAME}": {json.dumps(header[NAME])}}}'
    write_raw(folder / FILE, text.encode(), data)
    refused(folder, FILE, NAME, "twice")


def test_index_names_a_missing_shard(folder):
    (folder / FILE).unlink()
    refused(folder, INDEX, FILE, "missing")


def test_index_is_not_json(folder):
    (folder / INDEX).write_text("{")
    refused(folder, INDEX, "not valid JSON")


@pytest.mark.parametrize("weight_map", [None, [], {"a": 1}])
def test_index_without_a_map(folder, weight_map):
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    refused(folder, INDEX, "weight_map")


@pytest.mark.parametrize("shard", ["../secret.safetensors", "/etc/passwd", "a\\b.safetensors", ""])
def test_index_points_outside(folder, shard):
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"][NAME] = shard
    (folder / INDEX).write_text(json.dumps(index))
    refused(folder, INDEX, NAME, "outside")


def test_index_puts_a_tensor_into_the_wrong_shard(folder):
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"][NAME] = "model-00002-of-00002.safetensors"
    (folder / INDEX).write_text(json.dumps(index))
    refused(folder, NAME, FILE, "index")


def test_index_promises_a_tensor_that_no_shard_holds(folder):
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["model.layers.9.ghost"] = FILE
    (folder / INDEX).write_text(json.dumps(index))
    refused(folder, "model.layers.9.ghost", FILE)


def test_tensor_in_two_files(original):
    (original / "second.safetensors").write_bytes((original / "model.safetensors").read_bytes())
    refused(original, "second.safetensors", "model.safetensors")


@pytest.mark.parametrize("name", ["block.0.attn.sinks", "norm.scale", "block.3.mlp.mlp2_weight.scales"])
def test_missing_tensor(original, name):
    edit_tensors(original / "model.safetensors", lambda tensors: tensors.pop(name))
    refused(original, name, "missing", "expected")


def test_unexpected_tensor(original):
    file = original / "model.safetensors"
    edit_tensors(file, lambda t: t.update({"block.4.attn.sinks": t["block.3.attn.sinks"]}))
    refused(original, "block.4.attn.sinks", "unexpected", "model.safetensors")


@pytest.mark.parametrize("name", ["block.0.attn.qkv.weight", "block.2.mlp.mlp1_weight.blocks", "unembedding.weight"])
def test_misshapen_tensor(original, name):
    def transpose(tensors):
        dtype, shape, data = tensors[name]
        tensors[name] = (dtype, shape[::-1], data)

    edit_tensors(original / "model.safetensors", transpose)
    refused(original, name, "shape", "expected")


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("block.0.attn.out.weight", "F16"),
        ("block.0.mlp.gate.bias", "I16"),
        ("block.1.mlp.mlp1_weight.blocks", "I8"),
        ("block.1.mlp.mlp1_weight.scales", "F8_E8M0"),
    ],
)
def test_wrong_dtype(original, name, dtype):
    edit_header(original / "model.safetensors", lambda header: header[name].update(dtype=dtype))
    refused(original, name, "dtype", dtype, "expected")


def test_many_problems_are_counted(original):
    def drop(tensors):
        for name in [name for name in tensors if name.startswith("block.0.")]:
            del tensors[name]

    edit_tensors(original / "model.safetensors", drop)
    refused(original, "block.0.attn.norm.scale", "and 12 more", "gptoss-jax verify")


def test_shards_may_have_any_names_and_no_index(folder, golden_folder):
    (folder / INDEX).unlink()
    for i, file in enumerate(sorted(folder.glob("*.safetensors"))):
        file.rename(folder / f"part{i}.safetensors")
    assert open_checkpoint(folder).fingerprint() == open_checkpoint(golden_folder / "small").fingerprint()


def test_file_cut_after_it_was_opened(folder):
    tensor = read_folder(folder)[QUERY]
    with tensor.file.open("r+b") as file:
        file.truncate(tensor.start + 10)
    with pytest.raises(CheckpointError, match=r"ends inside 'model.layers.0.self_attn.q_proj.weight'"):
        tensor.read_into(np.empty(tensor.nbytes, np.uint8))


@pytest.mark.parametrize(
    ("spelling", "field", "value"),
    [
        ("huggingface", "rope_scaling", "yarn"),
        ("huggingface", "rope_scaling", [1]),
        ("huggingface", "layer_types", 4),
        ("huggingface", "num_hidden_layers", "24"),
        ("original", "num_hidden_layers", None),
        ("original", "num_hidden_layers", 10**15),
        ("original", "initial_context_length", "4096"),
        ("original", "rope_scaling_factor", float("inf")),
        ("original", "vocab_size", 320.0),
    ],
)
def test_config_value_of_a_wrong_kind(folder, original, spelling, field, value):
    path = (folder if spelling == "huggingface" else original) / "config.json"
    fields = json.loads(path.read_text())
    path.write_text(json.dumps(fields | {field: value}))
    refused(path.parent, "config.json", field.removesuffix("_scaling_factor").replace("num_hidden_", "num_"))


def test_config_without_rope(folder):
    """Plain rotary embedding must not be what a lost field silently gives."""
    fields = json.loads((folder / "config.json").read_text())
    del fields["rope_scaling"]
    (folder / "config.json").write_text(json.dumps(fields))
    refused(folder, "config.json", "rope_scaling", "missing")


def test_random_damage_to_a_header_is_always_an_error_of_ours(folder):
    """Flipped bytes: opened because nothing that counts was hit, or refused with the file's name."""
    blob = (folder / FILE).read_bytes()
    random = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(blob)
        for at in random.integers(0, 4072, random.integers(1, 6)):
            damaged[at] = random.integers(0x20, 0x7F)
        (folder / FILE).write_bytes(damaged)
        try:
            open_checkpoint(folder)
        except CheckpointError as error:
            assert FILE in str(error) or "index" in str(error) or "tensor" in str(error)
