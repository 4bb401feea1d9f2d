"""`load` and `save`: both layouts give the same bits, and the bits of the source come back."""

import dataclasses
import hashlib
import json

import jax
import ml_dtypes
import numpy as np
import pytest
from checkpoint_cases import edit_tensors, leaves, read_tensors, same, writable_copy

from gptoss_jax.checkpoint import CheckpointError, load, open_checkpoint, placing, reading, save, synthesize
from gptoss_jax.checkpoint import memory as memory_module
from gptoss_jax.checkpoint.folder import ALIGNMENT, aligned_empty
from gptoss_jax.checkpoint.names import LAYOUTS, is_packed, leaf_shapes, table
from gptoss_jax.config import GPT_OSS_20B, GPT_OSS_120B, TINY, ConfigError
from gptoss_jax.tokenizer import Tokenizer

PAIR = ("small", "wide")


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", PAIR)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_layouts_agree_leaf_by_leaf(golden_folder, name, dtype):
    a, tokenizer = load(golden_folder / name, dtype)
    b, _ = load(golden_folder / name / "original", dtype)
    assert tokenizer is None
    assert same(a, b)
    assert a.checkpoint_hash == b.checkpoint_hash and len(a.checkpoint_hash) == 64
    assert (a.name, b.name) == (name, f"{name}/original")
    for leaf, array in leaves(a).items():
        kind = np.uint8 if is_packed(leaf) else np.float32 if leaf.endswith("norm.scale") else np.dtype(dtype)
        assert array.dtype == kind, leaf


def test_values_are_those_of_the_file(golden_folder):
    """Every tensor of the original layout, cut out of the stacked arrays, read by nothing but the test."""
    model, _ = load(golden_folder / "wide", "float32")
    arrays = leaves(model)
    tensors = read_tensors(golden_folder / "wide" / "original" / "model.safetensors")
    for part in table(model.config, "original"):
        dtype, shape, data = tensors[part.name]
        values = np.frombuffer(data, np.uint8 if dtype == "U8" else ml_dtypes.bfloat16).reshape(shape)
        found = arrays[part.leaf] if part.layer is None else arrays[part.leaf][part.layer]
        assert (found == values.astype(found.dtype)).all(), part.name


@pytest.mark.parametrize(("config", "counts"), [(GPT_OSS_20B, (459, 363)), (GPT_OSS_120B, (687, 543))])
def test_published_number_of_tensors_and_bytes(config, counts):
    for layout, count in zip(LAYOUTS, counts, strict=True):
        parts = table(config, layout)
        assert len({part.name for part in parts}) == len(parts) == count
        assert sum(part.nbytes for part in parts) == {24: 13_761_264_768, 36: 65_248_815_744}[config.num_layers]


def test_the_table_tiles_every_array():
    for layout in LAYOUTS:
        filled = {leaf: np.zeros(shape[:2], int) for leaf, shape in leaf_shapes(TINY).items()}
        for part in table(TINY, layout):
            target = filled[part.leaf] if part.layer is None else filled[part.leaf][part.layer]
            target[slice(*part.rows)] += 1
        assert all((count == 1).all() for count in filled.values())


@pytest.mark.parametrize("name", PAIR)
@pytest.mark.parametrize("source", ["", "original"])
def test_save_then_load(golden_folder, tmp_path, name, source):
    model, _ = load(golden_folder / name / source, "float32")
    for layout in LAYOUTS:
        again, _ = load(save(model, tmp_path / layout, layout), "float32")
        assert same(model, again), layout
        assert open_checkpoint(tmp_path / layout).layout == layout
    assert sha256(tmp_path / "original" / "model.safetensors") == sha256(
        golden_folder / name / "original" / "model.safetensors"
    )
    saved = read_tensors(tmp_path / "huggingface" / "model.safetensors")
    for file in (golden_folder / name).glob("*.safetensors"):
        for tensor, value in read_tensors(file).items():
            assert saved[tensor] == value, tensor


def test_save_in_bfloat16_gives_the_same_bytes(golden_folder, tmp_path):
    model, _ = load(golden_folder / "small", "bfloat16")
    save(model, tmp_path / "b", "original")
    assert sha256(tmp_path / "b" / "model.safetensors") == sha256(
        golden_folder / "small" / "original" / "model.safetensors"
    )


def test_the_library_reads_what_is_saved(golden_folder, tmp_path):
    from safetensors.numpy import load_file

    model, _ = load(golden_folder / "small", "float32")
    arrays = load_file(save(model, tmp_path / "s") / "model.safetensors")
    assert len(arrays) == 79
    assert arrays["model.layers.2.mlp.experts.down_proj_blocks"].shape == (8, 128, 3, 16)


def test_saved_configurations_are_both_published_spellings(golden_folder, tmp_path):
    model, _ = load(golden_folder / "small", "float32")
    hf = json.loads((save(model, tmp_path / "h") / "config.json").read_text())
    original = json.loads((save(model, tmp_path / "o", "original") / "config.json").read_text())
    assert hf["num_local_experts"] == 8 and hf["rope_scaling"]["truncate"] is False
    assert original == json.loads((golden_folder / "small" / "original" / "config.json").read_text())


def test_transformers_5_spelling(golden_folder, tmp_path):
    folder = writable_copy(golden_folder / "small", tmp_path / "five")
    fields = json.loads((folder / "config.json").read_text())
    fields["rope_parameters"] = fields.pop("rope_scaling") | {"rope_theta": fields.pop("rope_theta")}
    (folder / "config.json").write_text(json.dumps(fields))
    five, _ = load(folder)
    four, _ = load(golden_folder / "small")
    assert five.config == four.config and same(five, four)


def test_dtypes_json_and_other_files_are_ignored(golden_folder, tmp_path):
    folder = writable_copy(golden_folder / "small" / "original", tmp_path / "o")
    (folder / "dtypes.json").write_text("{}")
    (folder / "metal").mkdir()
    assert same(load(folder)[0], load(golden_folder / "small")[0])


def test_norm_scales_may_be_float32(golden_folder, tmp_path):
    folder = writable_copy(golden_folder / "small" / "original", tmp_path / "o")

    def widen(tensors):
        for name, (_, shape, data) in tensors.items():
            if name.endswith("norm.scale"):
                values = np.frombuffer(data, ml_dtypes.bfloat16).astype(np.float32)
                tensors[name] = ("F32", shape, values.tobytes())

    edit_tensors(folder / "model.safetensors", widen)
    assert same(load(folder)[0], load(golden_folder / "small")[0])


def test_first_layers(golden_folder, tmp_path):
    whole, _ = load(golden_folder / "small", "float32")
    part, _ = load(golden_folder / "small", "float32", first_layers=3)
    assert part.config.num_layers == 3 and part.config.layer_types == whole.config.layer_types[:3]
    assert part.name == "small (first 3 layers)"
    for leaf, array in leaves(part).items():
        expected = leaves(whole)[leaf]
        assert (array == (expected[:3] if leaf.startswith("blocks.") else expected)).all()
    assert same(part, load(save(part, tmp_path / "three"), "float32")[0])


@pytest.mark.parametrize("count", [0, 5, -1])
def test_first_layers_out_of_range(golden_folder, count):
    with pytest.raises(ConfigError, match="first_layers"):
        load(golden_folder / "small", first_layers=count)


@pytest.mark.parametrize("dtype", ["float16", "int8", "nonsense", 3])
def test_unknown_dtype(golden_folder, dtype):
    with pytest.raises(CheckpointError, match="dtype"):
        load(golden_folder / "small", dtype)


def test_dense_weights_may_be_stored_narrower_than_the_activations(golden_folder):
    model, _ = load(golden_folder / "small", "float32", param_dtype="bfloat16")
    assert model.dtype == np.float32
    assert leaves(model)["blocks.attention.qkv.weight"].dtype == ml_dtypes.bfloat16


def test_built_in_model_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(reading, "BUILT_IN", tmp_path / "weights")
    with pytest.raises(CheckpointError, match=r"built-in model is missing.*give a folder"):
        load()


def test_built_in_model_is_float32_by_default(monkeypatch, golden_folder):
    monkeypatch.setattr(reading, "BUILT_IN", golden_folder / "small")
    assert load()[0].dtype == np.float32
    assert load(golden_folder / "small")[0].dtype == ml_dtypes.bfloat16


def test_tokenizer_of_the_folder_bounds_the_tokens(golden_folder, tmp_path):
    folder = writable_copy(golden_folder / "small", tmp_path / "small")
    tokenizer = Tokenizer.train("to be or not to be, that is the question", 270, ["<|end|>"])
    tokenizer.save(folder)
    model, found = load(folder)
    assert model.config.num_tokens == found.n_vocab == tokenizer.n_vocab < model.config.vocab_size
    assert found.decode(found.encode("not to be")) == "not to be"
    _, again = load(save(model, tmp_path / "again", tokenizer=found))
    assert again.n_vocab == tokenizer.n_vocab


def test_name_of_a_hub_cache(golden_folder, tmp_path):
    folder = tmp_path / "models--openai--gpt-oss-20b" / "snapshots" / "abc"
    writable_copy(golden_folder / "small", folder)
    assert open_checkpoint(folder).name == "openai/gpt-oss-20b"


def test_too_little_memory_is_said_before_anything_is_read(monkeypatch, golden_folder):
    read = []
    monkeypatch.setattr(placing, "available_memory", lambda: 1_500_000)
    monkeypatch.setattr("gptoss_jax.checkpoint.folder.Checkpoint.read", lambda *a, **k: read.append(a))
    with pytest.raises(CheckpointError, match=r"2\.2 MiB of memory, 1\.4 MiB are available.*bfloat16.*first_layers=\d"):
        load(golden_folder / "small", "float32")
    assert not read


def test_nothing_is_returned_if_a_file_is_cut_while_it_is_read(monkeypatch, golden_folder, tmp_path):
    folder = writable_copy(golden_folder / "small" / "original", tmp_path / "o")
    checkpoint = open_checkpoint(folder)
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(900_000)
    monkeypatch.setattr(reading, "open_checkpoint", lambda path: checkpoint)
    with pytest.raises(CheckpointError, match="the file ends inside"):
        load(folder)


def test_large_checkpoints_leave_the_file_cache(monkeypatch, golden_folder):
    """What does not fit into memory twice is dropped from the cache; the model is the same."""
    seen = []
    monkeypatch.setattr(reading, "available_memory", lambda: 2_000_000)
    monkeypatch.setattr("os.posix_fadvise", lambda *a: seen.append(a), raising=False)
    model, _ = load(golden_folder / "small", "bfloat16")
    assert len(seen) == 79
    monkeypatch.setattr(reading, "available_memory", lambda: None)
    assert same(model, load(golden_folder / "small", "bfloat16")[0])
    assert len(seen) == 79


def test_memory_is_aligned_and_taken_over_without_a_copy(golden_folder):
    array = aligned_empty((3, 5, 7), np.float32)
    assert array.ctypes.data % ALIGNMENT == 0 and array.flags.c_contiguous
    taken = jax.device_put(array)
    assert taken.unsafe_buffer_pointer() == array.ctypes.data


def test_available_memory_is_a_plausible_number():
    available = memory_module.available_memory()
    assert available is None or 2**20 < available < 2**50


@pytest.mark.parametrize(
    "leaf", ["blocks.attention.qkv.weight", "blocks.mlp.experts.gate_up_blocks", "embedding.weight"]
)
@pytest.mark.parametrize("source", ["", "original"])
def test_any_box_of_an_array(golden_folder, leaf, source):
    """What a device of a mesh asks for: slices of any axis, across the seams of the files."""
    checkpoint = open_checkpoint(golden_folder / "small" / source)
    whole = checkpoint.read(leaf)
    random = np.random.default_rng(0)
    for _ in range(20):
        index = tuple(slice(*sorted(random.choice(n + 1, 2, replace=False))) for n in whole.shape)
        index = index[: random.integers(0, whole.ndim + 1)]
        box = checkpoint.read(leaf, index)
        assert box.shape == whole[index].shape and box.tobytes() == whole[index].tobytes()


def test_conversion_to_float32_is_exact_for_every_bfloat16(tmp_path):
    """All 65,536 patterns: zeros, subnormals, infinities and NaNs keep their bits."""
    config = dataclasses.replace(TINY, vocab_size=1024, num_tokens=1024)
    synthesize(config, tmp_path / "t", layout="original")
    bits = np.arange(2**16, dtype=np.uint16)
    edit_tensors(
        tmp_path / "t" / "model.safetensors",
        lambda tensors: tensors.update({"embedding.weight": ("BF16", [1024, config.hidden_size], bits.tobytes())}),
    )
    values = open_checkpoint(tmp_path / "t").read("embedding.weight", (), np.float32)
    assert (values.view(np.uint32).reshape(-1) == bits.astype(np.uint32) << 16).all()


@pytest.mark.parametrize("show", [True, False])
def test_progress_bar(golden_folder, capfd, show):
    load(golden_folder / "small", progress=show)
    err = capfd.readouterr().err
    assert ("Loading small" in err) == show
