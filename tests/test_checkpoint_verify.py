"""`verify` names every problem of a folder in one run; `inspect` says what is in it; both from small reads."""

import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from checkpoint_cases import edit_tensors, read_raw, read_tensors, writable_copy, write_raw, write_tensors

from gptoss_jax import mxfp4
from gptoss_jax.checkpoint import CheckpointError, inspect, synthesize, verify, verifying
from gptoss_jax.checkpoint.files import INDEX
from gptoss_jax.checkpoint.inspecting import weight_bytes
from gptoss_jax.checkpoint.verifying import _SCALE_NAN, MANIFEST, read_manifest
from gptoss_jax.checkpoint.writing import FolderWriter
from gptoss_jax.config import GPT_OSS_20B, GPT_OSS_120B


@pytest.fixture
def original(golden_folder, tmp_path):
    return writable_copy(golden_folder / "small" / "original", tmp_path / "original")


@pytest.mark.parametrize("name", ["small", "wide"])
@pytest.mark.parametrize("source", ["", "original"])
def test_sound_folders_and_known_logits(golden_folder, name, source):
    folder = golden_folder / name
    tokens, logits = np.load(folder / "tokens.npy"), np.load(folder / "logits_f32_openai.npy")
    report = verify(folder / source, tokens=tokens, logits=logits)
    assert report.ok and report.problems == []
    assert report.logit_error < 1e-4
    assert "sound" in str(report) and "no SHA256SUMS" in str(report)


def test_other_logits_are_a_problem(golden_folder):
    folder = golden_folder / "small"
    tokens, logits = np.load(folder / "tokens.npy"), np.load(folder / "logits_f32_openai.npy")
    report = verify(folder, tokens=tokens, logits=logits + 1e-3)
    assert not report.ok and "logits differ" in report.problems[0]
    report = verify(folder, tokens=tokens, logits=logits[:-1])
    assert "shape" in report.problems[0]


def test_tokens_without_logits(golden_folder):
    with pytest.raises(CheckpointError, match="both"):
        verify(golden_folder / "small", tokens=[1, 2])


def test_manifest_written_then_held(original):
    first = verify(original, write_manifest=True)
    assert first.ok and set(read_manifest(original / MANIFEST)) == {"config.json", "model.safetensors"}
    subprocess.run(["sha256sum", "--check", "--quiet", MANIFEST], cwd=original, check=True)
    assert verify(original).ok and "no SHA256SUMS" not in str(verify(original))
    blob = bytearray((original / "model.safetensors").read_bytes())
    blob[-1] ^= 1  # one bit of one scale: possible, but not the right one
    (original / "model.safetensors").write_bytes(blob)
    report = verify(original)
    assert len(report.problems) == 1 and "model.safetensors" in report.problems[0] and "sha256" in report.problems[0]
    assert verify(original, write_manifest=True).ok  # says what is there now, on demand only


def test_manifest_from_elsewhere(original, tmp_path):
    sums = tmp_path / "theirs.txt"
    sums.write_text(f"# comment\n{'0' * 64}  ./model.safetensors\n{'1' * 64} *tokenizer.json\n")
    problems = verify(original, manifest=sums).problems
    assert len(problems) == 2 and "model.safetensors" in problems[0] and "not in the folder" in problems[1]
    sums.write_text("what is this\n")
    with pytest.raises(CheckpointError, match=r"theirs.txt: line 1"):
        verify(original, manifest=sums)
    with pytest.raises(CheckpointError, match="absent"):
        verify(original, manifest=tmp_path / "absent")


def test_no_manifest_for_a_broken_folder(original):
    edit_tensors(original / "model.safetensors", lambda tensors: tensors.pop("norm.scale"))
    assert not verify(original, write_manifest=True).ok
    assert not (original / MANIFEST).exists()


def test_all_problems_in_one_run(original):
    def damage(tensors):
        del tensors["norm.scale"]
        tensors["extra"] = ("U8", [3], b"abc")
        dtype, shape, data = tensors["block.0.attn.qkv.weight"]
        tensors["block.0.attn.qkv.weight"] = (dtype, shape[::-1], data)
        dtype, shape, data = tensors["block.1.attn.sinks"]
        tensors["block.1.attn.sinks"] = (dtype, shape, np.array([np.nan] * 4, ml_dtypes.bfloat16).tobytes())
        dtype, shape, data = tensors["block.2.mlp.mlp1_weight.scales"]
        tensors["block.2.mlp.mlp1_weight.scales"] = (dtype, shape, data[:-1] + b"\xff")
        dtype, shape, data = tensors["block.3.mlp.mlp1_weight.blocks"]
        tensors["block.3.mlp.mlp1_weight.blocks"] = (dtype, shape, bytes(len(data)))

    edit_tensors(original / "model.safetensors", damage)
    problems = verify(original).problems
    text = "\n".join(problems)
    for words in (
        "'norm.scale' is missing",
        "unexpected tensor 'extra'",
        "'block.0.attn.qkv.weight' has shape",
        "'block.1.attn.sinks': 4 values are NaN",
        "'block.2.mlp.mlp1_weight.scales': 1 scales are 255",
        "'block.3.mlp.mlp1_weight.blocks': every byte is zero",
    ):
        assert words in text
    assert len(problems) == 6


def test_corrupt_files_are_all_named(golden_folder, tmp_path):
    folder = writable_copy(golden_folder / "small", tmp_path / "s")
    for file in folder.glob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-7])
    (folder / INDEX).unlink()
    text = str(verify(folder))
    assert all(f"model-0000{i}-of-00002.safetensors" in text for i in (1, 2))


def test_config_problem_is_listed(original):
    (original / "config.json").write_text("{}")
    assert "config.json" in verify(original).problems[0]


@pytest.mark.parametrize("function", [verify, inspect])
def test_missing_folder(tmp_path, function):
    with pytest.raises(CheckpointError, match="no such folder"):
        function(tmp_path / "nowhere")


def test_published_digests(monkeypatch, tmp_path, golden_folder):
    """A folder with the published files' names is held against their digests."""
    folder = writable_copy(golden_folder / "small", tmp_path / "s")
    data = tmp_path / "data"
    data.mkdir()
    sums = verify(folder).sha256
    lines = [f"{digest}  {name}" for name, digest in sums.items() if name.endswith(".safetensors")]
    (data / "gpt-oss-small.sha256").write_text("\n".join(lines))
    monkeypatch.setattr(verifying, "_PUBLISHED", data)
    report = verify(folder)
    assert report.ok and report.published == "gpt-oss-small" and "this is gpt-oss-small" in str(report)
    (data / "gpt-oss-small.sha256").write_text("\n".join(lines).replace(lines[0][:8], "00000000"))
    report = verify(folder)
    assert not report.ok and "not the published gpt-oss-small" in report.problems[0] and not report.published


@pytest.mark.parametrize(("preset", "count"), [("gpt-oss-20b", 3), ("gpt-oss-120b", 15)])
def test_published_manifests(preset, count):
    sums = read_manifest(verifying._PUBLISHED / f"{preset}.sha256")
    assert sorted(sums) == [f"model-{i:05}-of-{count - 1:05}.safetensors" for i in range(count)]
    assert len(set(sums.values())) == count


def test_synthetic_weights_are_not_taken_for_the_published(tmp_path):
    synthesize("tiny", tmp_path / "t")
    for file in list((tmp_path / "t").glob("*.safetensors")):
        tensors = list(read_tensors(file).items())
        file.unlink()
        for i in range(3):
            write_tensors(tmp_path / "t" / f"model-0000{i}-of-00002.safetensors", dict(tensors[i::3]))
    report = verify(tmp_path / "t")
    assert report.ok and not report.published and "random weights" in str(report)


@pytest.mark.parametrize(
    ("config", "numbers"),
    [
        (GPT_OSS_20B, (20_914_757_184, 3_608_307_264, 13_761_264_768, 459)),
        (GPT_OSS_120B, (116_829_156_672, 5_132_849_472, 65_248_815_744, 687)),
    ],
)
def test_inspect_the_published_shapes(tmp_path, config, numbers):
    FolderWriter(tmp_path, config, "huggingface")  # sparse files: headers, no data
    found = inspect(tmp_path)
    assert (found.total_parameters, found.active_parameters, found.tensor_bytes, found.num_tensors) == numbers
    assert found.problems == [] and found.layout == "huggingface" and not found.dequantized
    assert found.memory["bfloat16"] == pytest.approx(numbers[2], rel=1e-3)
    text = str(found)
    for number in numbers[:3]:
        assert f"{number:,}" in text
    assert "MXFP4" in text and "complete    yes" in text


def test_the_restated_constant():
    assert mxfp4.SCALE_NAN == _SCALE_NAN


def test_memory_is_what_the_model_takes(golden_folder):
    from checkpoint_cases import leaves

    from gptoss_jax.checkpoint import load

    model, _ = load(golden_folder / "small", "float32")
    assert sum(array.nbytes for array in leaves(model).values()) == weight_bytes(model.config, 4)


def test_inspect_an_incomplete_folder(original):
    edit_tensors(original / "model.safetensors", lambda tensors: tensors.pop("norm.scale"))
    found = inspect(original)
    assert found.problems == ["tensor 'norm.scale' is missing (expected BF16 [128])"]
    assert "norm.scale" in str(found) and "1 problem" in str(found)


def test_inspect_dequantized_experts(golden_folder, tmp_path):
    folder = writable_copy(golden_folder / "small" / "original", tmp_path / "o")
    header, data = read_raw(folder / "model.safetensors")
    header["model.layers.0.mlp.experts.gate_up_proj"] = header.pop("block.0.attn.out.bias")
    write_raw(folder / "model.safetensors", header, data)
    assert inspect(folder).dequantized


def test_inspect_and_verify_do_not_need_jax(golden_folder):
    """They answer at once, and on a machine where JAX does not start."""
    script = f"""
import sys
from gptoss_jax.checkpoint import inspect, verify
inspect({str(golden_folder / "small")!r})
assert verify({str(golden_folder / "small")!r}).ok
sys.exit("jax" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
