"""The command line: what it writes, and one line on stderr when something is wrong."""

import json

import numpy as np
import pytest

from gptoss_jax.cli import main
from gptoss_jax.tracing import Trace

COMMANDS = ["generate", "chat", "trace", "inspect", "verify", "convert", "doctor", "bench", "demo"]


@pytest.fixture(scope="module")
def folder(golden_folder):
    return str(golden_folder / "small")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_examples(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"gptoss-jax {command}" in capsys.readouterr().out


def test_generate_prints_ids(folder, capsys):
    assert main(["generate", "--checkpoint", folder, "--tokens", "1,2,3", "--max-new-tokens", "5"]) == 0
    assert len(capsys.readouterr().out.split(",")) == 5


def test_trace_writes_trace_figures_and_explorer(folder, tmp_path, capsys):
    ids = ",".join(map(str, range(20)))
    assert (
        main(["trace", "--checkpoint", folder, "--tokens", ids, "--max-new-tokens", "4", "--out", str(tmp_path)]) == 0
    )
    trace = Trace.load(tmp_path / "trace.npz")
    assert trace.generated.sum() == 4
    assert trace.experts.shape == (24, 4, 4)
    assert trace.model == "small"
    assert "<script" in (tmp_path / "explorer.html").read_text("utf-8")
    pictures = sorted(path.stem for path in (tmp_path / "figures").glob("*.png"))
    assert {"gate_entropy", "load", "mass", "first_choices", "evenness"} <= set(pictures)
    described = (tmp_path / "figures" / "README.md").read_text("utf-8")
    assert all(f"({name}.png)" in described for name in pictures)
    again = tmp_path / "again"
    assert main(["trace", "--recorded", str(tmp_path / "trace.npz"), "--out", str(again), "--compact"]) == 0
    assert np.array_equal(Trace.load(again / "trace.npz").experts, trace.experts)


def test_trace_reads_other_recorders(tmp_path):
    rng = np.random.default_rng(0)
    experts = np.argsort(rng.random((6, 2, 8)), axis=-1)[..., :4]
    vllm, hf = tmp_path / "vllm.npz", tmp_path / "hf.npz"
    np.savez(vllm, routed_experts=experts, tokens=np.arange(6), num_experts=8)
    np.savez(hf, router_logits=rng.standard_normal((2, 6, 8)), tokens=np.arange(6))
    for path in (vllm, hf):
        assert main(["trace", "--recorded", str(path), "--out", str(tmp_path / path.stem)]) == 0
    assert np.array_equal(Trace.load(tmp_path / "vllm" / "trace.npz").experts, experts)
    assert not (tmp_path / "vllm" / "figures" / "mass.png").exists()  # vLLM records no weights
    assert (tmp_path / "hf" / "figures" / "mass.png").exists()


def test_inspect_and_verify_a_sound_folder(folder, capsys):
    assert main(["inspect", folder]) == 0
    assert main(["verify", folder]) == 0
    out = capsys.readouterr().out
    assert "sound" in out
    assert "huggingface" in out


def test_convert_and_verify_with_known_logits(golden_folder, tmp_path, capsys):
    source, target = golden_folder / "small", tmp_path / "original"
    assert main(["convert", str(source), str(target), "--layout", "original"]) == 0
    known = ["--tokens", str(source / "tokens.npy"), "--logits", str(source / "logits_f32_openai.npy")]
    assert main(["verify", str(target), *known]) == 0
    assert "logits differ from the known ones by at most" in capsys.readouterr().out
    wrong = tmp_path / "wrong.npy"
    np.save(wrong, np.load(source / "logits_f32_openai.npy") + 1)
    assert main(["verify", str(target), "--tokens", str(source / "tokens.npy"), "--logits", str(wrong)]) == 1


def test_synthesize(tmp_path):
    assert main(["convert", "--synthesize", "tiny", str(tmp_path / "t")]) == 0
    assert main(["verify", str(tmp_path / "t")]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "--checkpoint", "/nowhere", "--tokens", "1"], "/nowhere"),
        (["generate", "--checkpoint", "FOLDER", "--tokens", "9999"], "9999"),
        (["generate", "--checkpoint", "FOLDER", "--prompt", "x"], "no tokenizer"),
        (["generate", "--checkpoint", "FOLDER", "--tokens", "1", "--temperature", "nan"], "temperature"),
        (["generate", "--checkpoint", "FOLDER", "--tokens", "1", "--top-p", "2"], "top_p"),
        (["generate", "--checkpoint", "FOLDER", "--tokens", "1", "--first-layers", "9"], "first_layers"),
        (["trace", "--recorded", "/nowhere.npz", "--out", "OUT"], "/nowhere.npz"),
        (["trace", "--checkpoint", "FOLDER", "--file", "/nowhere.txt", "--out", "OUT"], "/nowhere.txt"),
        (["trace", "--checkpoint", "FOLDER", "--domains", "OUT", "--out", "OUT"], ".txt"),
        (["inspect", "/nowhere"], "/nowhere"),
        (["verify", "/nowhere"], "/nowhere"),
        (["convert", "--synthesize", "gpt-oss-7b", "OUT/x"], "gpt-oss-7b"),
        (["convert", "FOLDER"], "source and a target"),
    ],
)
def test_errors_are_one_line(folder, tmp_path, capsys, arguments, message):
    arguments = [word.replace("FOLDER", folder).replace("OUT", str(tmp_path)) for word in arguments]
    assert main(arguments) == 1
    error = capsys.readouterr().err.strip()
    assert message in error
    assert error.startswith("gptoss-jax: ")
    assert len(error.splitlines()) == 1


def test_usage_errors_exit_with_2(capsys):
    for arguments in ([], ["nonsense"], ["generate"], ["generate", "--tokens", "a,b"]):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2


def test_interrupt_ends_with_130(monkeypatch, capsys, folder):
    from gptoss_jax.cli import folders

    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(folders, "_inspect", interrupted)
    assert main(["inspect", folder]) == 130
    assert "stopped" in capsys.readouterr().err


def test_trace_of_a_conversation_needs_a_tokenizer(folder, tmp_path, capsys):
    path = tmp_path / "chat.json"
    path.write_text(json.dumps({"messages": [{"role": "user", "content": "Hi"}]}))
    assert main(["trace", "--checkpoint", folder, "--conversation", str(path), "--out", str(tmp_path / "o")]) == 1
    assert "tokenizer" in capsys.readouterr().err


def test_bench_measures_and_compares_with_the_roofline(folder, capsys, monkeypatch):
    monkeypatch.setattr("gptoss_jax.cli.bench.bandwidth", lambda: 2.0**33)
    command = ["bench", "--checkpoint", folder, "--prompt", "20", "--tokens", "4", "--rounds", "1", "--batch", "2"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    for text in ("prompt of 20 tokens", "tokens/s", "8.0 GiB/s", "of the memory's limit", "2 at once"):
        assert text in shown
    for wrong, said in (
        (["--rounds", "0"], "--rounds must be at least 1"),
        (["--prompt", "999999"], "context ends at"),
    ):
        assert main(["bench", "--checkpoint", folder, *wrong]) == 1
        assert said in capsys.readouterr().err
