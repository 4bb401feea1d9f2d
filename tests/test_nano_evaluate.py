"""The measurements of the built-in model, held to independent computations and to models with known answers."""

import json

import numpy as np
import pytest

import gptoss_jax as gj
from gptoss_jax.nano import card, corpus, dialogs, evaluate, metrics, state
from gptoss_jax.nano.evaluation import experts, tasks, text
from gptoss_jax.nano.export import to_model
from gptoss_jax.nano.network import init
from gptoss_jax.nano.plan import PRESETS
from gptoss_jax.nano.rendering import Codec
from gptoss_jax.nano.train import BUILT_IN


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec(BUILT_IN)


@pytest.fixture(scope="module")
def tiny():
    return to_model(init(PRESETS["tiny"], 0), PRESETS["tiny"])


# Text


@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 9, 30])
def test_windows_score_every_token_once_with_half_a_window_in_view(count):
    spans = text.windows(list(range(count)), 8)
    scored = [i for _, first, end in spans for i in range(first, end)]
    assert scored == list(range(1, count))
    assert all(end - start <= 8 and first - start >= min(first, 4) for start, first, end in spans)


def test_bits_are_those_of_the_logits(tiny, codec):
    document = "def main():\n    return 7\n"
    ids = codec.encode(document)
    logits = np.asarray(tiny(np.array(ids)), np.float64)
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    bits = -np.log2([probs[i, ids[i + 1]] for i in range(len(ids) - 1)]).sum()
    bits += 8 * len(codec.tokenizer.token_bytes(ids[0]))
    found = text.read(tiny, codec.tokenizer, [document, document], window=64)
    assert found.bits == pytest.approx(2 * bits, rel=1e-5) and found.size == 2 * len(document)
    assert found.bits_per_byte == pytest.approx(bits / len(document), rel=1e-5)
    np.testing.assert_array_equal(found.tokens, ids + ids)
    np.testing.assert_array_equal(found.experts[: len(ids)], gj.trace(tiny, np.array(ids)).experts)
    assert found.document.tolist() == [0] * len(ids) + [1] * len(ids)


def test_float_experts_cost_what_the_float_network_costs(codec):
    config = PRESETS["tiny"]
    params = init(config, 0)
    rounded = {**params, **{name: np.zeros_like(v) for name, v in params.items() if name.endswith(("up", "down"))}}
    dense = text.FloatExperts(params, config)
    document = ["It is a truth universally acknowledged, that"]
    right = text.read(to_model(params, config), codec.tokenizer, document, window=64, dispatch=dense).bits
    same = text.read(to_model(rounded, config), codec.tokenizer, document, window=64, dispatch=dense).bits
    packed = text.read(to_model(params, config), codec.tokenizer, document, window=64).bits
    assert right == pytest.approx(same, rel=1e-6) and right != packed and right == pytest.approx(packed, rel=0.2)


def test_a_sample_of_documents_is_spread_over_all():
    documents = [str(i) * 100 for i in range(10)]
    assert text.shortened(documents, None) == documents
    assert [d[0] for d in text.shortened(documents, 300)] == ["0", "4", "9"]


# Answers


@pytest.fixture
def oracle(monkeypatch, codec):
    """Generation that follows `told`, prompt -> text; an unknown prompt is answered by its last message."""
    told: dict[str, str] = {}

    def remember(chosen) -> None:
        for dialog in chosen:
            ids, _ = codec.training(dialog)
            at = len(codec.prompt(dialog.messages[: dialog.prompt]))
            told[codec.tokenizer.decode(ids[:at])] = codec.tokenizer.decode(ids[at:])
            if any(message.recipient for message in dialog.messages):
                before = codec.prompt(dialog.messages[:-1])
                told[codec.tokenizer.decode(before)] = codec.tokenizer.decode(ids[len(before) :])

    def generate(model, rows, most, *, stop_tokens):
        out = []
        for row in rows:
            asked = codec.tokenizer.decode(row)
            result = asked.removesuffix("<|end|><|start|>assistant").rpartition("<|message|>")[2]
            ids = codec.tokenizer.encode(
                told.get(asked, f"<|channel|>final<|message|>{result}<|return|>"), allowed_special="all"
            )
            ends = [i for i, token in enumerate(ids) if token in stop_tokens]
            out.append(ids[: min(ends[0] + 1, most)])
        return out

    monkeypatch.setattr(tasks, "generate_batch", generate)
    monkeypatch.setattr(tasks, "ROWS", 8)
    return remember, told


@pytest.mark.parametrize("task", dialogs.TASKS)
def test_a_perfect_model_scores_one_and_a_wrong_one_zero(task, oracle, codec):
    remember, told = oracle
    for effort in ("low", "high"):
        chosen = tasks.prompts(task, effort, 20, seed=4)
        remember(chosen)
        cell = tasks.measure(None, codec, task, effort, 20, seed=4)
        assert cell.right == cell.total == len(chosen) == 20
        assert cell.called == (20 if task == "calc" else 0)
    for prompt in told:
        told[prompt] = "<|channel|>final<|message|>wrong<|return|>"
    assert tasks.measure(None, codec, task, "high", 20, seed=4).right == 0


def test_an_answer_to_a_wrong_tool_call_is_wrong(oracle, codec):
    remember, told = oracle
    chosen = tasks.prompts("calc", "low", 8, seed=0)
    remember(chosen)
    for prompt, answer in list(told.items()):
        told[prompt] = answer.replace('"expr": "', '"expr": "1+')  # what the tool sends back is copied, and wrong
    cell = tasks.measure(None, codec, "calc", "low", 8, seed=0)
    assert cell.right == cell.called == 0


def test_prompts_are_fresh_and_distinct():
    first, second = (tasks.prompts("add", "high", 200, seed) for seed in (1, 2))
    asked = lambda chosen: {dialog.messages[1].text for dialog in chosen}
    assert len(asked(first)) == 200 and first == tasks.prompts("add", "high", 200, 1)
    assert len(asked(first) & asked(second)) < 40
    for dialog in first:
        assert dialogs.is_held_out(list(dialog.messages[1 : dialog.prompt]))


def test_swapping_counts_changed_answers(oracle, codec, monkeypatch):
    chosen = tasks.prompts("reverse", "high", 24, seed=0)
    calls = []

    def conclude(model, codec, part, thoughts):
        calls.append(len(part))
        return [thought.answer for thought in thoughts]

    monkeypatch.setattr(tasks, "_conclude", conclude)
    found = tasks.swap(None, codec, "reverse", 24, seed=0)
    assert found.changed == found.followed == found.total == len(chosen) and sum(calls) == 48
    monkeypatch.setattr(tasks, "_conclude", lambda model, codec, part, thoughts: [d.answer for d in part])
    assert tasks.swap(None, codec, "reverse", 24, seed=0).changed == 0


def test_wilson_interval():
    assert tasks.wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-3)
    assert tasks.wilson(0, 64)[0] == 0 and tasks.wilson(0, 64)[1] == pytest.approx(0.0566, abs=1e-3)
    assert tasks.wilson(0, 0) == (0.0, 1.0)


# Experts


def _reading(choose, seed: int) -> text.Reading:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 5, 600).astype(np.int32)
    ids = np.stack([[choose(rng), 4 + rng.integers(4)] for _ in tokens])[:, None, :]
    return text.Reading(1.0, 1, tokens, ids, np.repeat(np.arange(6, dtype=np.int32), 100))


def test_experts_with_a_known_answer():
    """Domain a uses experts 0 and 1, b uses 2 and 3; half of the choices are free: I = ln 2 / 2."""
    own = {"a": _reading(lambda rng: rng.integers(2), 0), "b": _reading(lambda rng: 2 + rng.integers(2), 1)}
    blank = {"a": _reading(lambda rng: rng.integers(4), 2), "b": _reading(lambda rng: rng.integers(4), 3)}
    found = experts.measure(own, blank, num_experts=9)
    assert found.dead.tolist() == [1] and found.least[0] == 0
    assert found.information[0] == pytest.approx(np.log(2) / 2, abs=0.01)
    assert found.untrained[0] < 0.01 and found.given_token[0] == pytest.approx(np.log(2) / 2, abs=0.02)
    assert found.given_token_low[0] > found.given_token_shuffled_high[0]
    same = experts.measure(blank, blank, num_experts=9)
    assert same.information[0] < 0.01


# The whole


def test_a_report_becomes_tables_and_a_card(tiny, codec, tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "ROWS", 2)
    texts = {"novels": ["Emma Woodhouse, handsome, clever, and rich, " * 3] * 2, "code": ["int main(void);\n" * 8] * 2}
    control = init(PRESETS["tiny"], 0)
    report = evaluate.evaluate(
        tiny, codec, texts, names=["echo"], efforts=["low"], prompts=2, parts=("text", "tasks", "experts"),
        control=control,
    )  # fmt: skip
    report["baselines"] = {"novels": 99.0, "code": 0.1}
    assert json.loads(json.dumps(report))["text"]["novels"]["control"] > 1
    assert len(evaluate.tables(report, report["baselines"])) == 4
    weights, run = tmp_path / "weights", tmp_path / "run"
    weights.mkdir()
    run.mkdir()
    (weights / "config.json").write_text(json.dumps(PRESETS["tiny"].to_hf()))
    log = metrics.Log(run, 0)
    log.add(20, 100.0, [{name: 1.0 for name in metrics.COLUMNS[2:]}])
    plan = {"rows": 2, "length": 50, "text_share": 0.5, "quantize": True, "fall": 20, "steps": 20, "rate": 0.1}
    monkeypatch.setattr(state, "restore", lambda folder: (type("S", (), {"step": 20}), plan))
    shown = card.write(weights, report, [run], "**Early.**").read_text()
    assert "Below the baseline on 1 of 2" in shown and "Four bits cost +" in shown and "of 2 layers" in shown
    assert "dead experts" in shown and "**Early.**" in shown and "training.png" in shown
    assert "| 1 | 4-bit experts | 20 | 0.00 M | 50% | 0.1, falling | 1.000 | 1.000 |" in shown
    assert (weights / "training.png").exists() and (weights / "training.csv").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["--checkpoint", "nowhere"], "nowhere"),
        (["--texts", "nowhere"], "nowhere: no <name>.txt"),
        (["--prompts", "0"], "--prompts must be at least 1, not 0"),
        (["--control", "nowhere"], "nowhere: no such file"),
    ],
)
def test_bad_arguments(line, message, capsys):
    assert evaluate.main(line) == 1
    shown = capsys.readouterr().err
    assert message in shown and shown.count("\n") == 1


def test_the_shipped_checkpoint_is_a_gpt_oss_folder():
    """What the card promises, read from the files."""
    fields = json.loads((BUILT_IN / "config.json").read_text())
    assert fields["model_type"] == "gpt_oss" and fields["architectures"] == ["GptOssForCausalLM"]
    assert fields["num_local_experts"] == 32 and fields["num_experts_per_tok"] == 4
    assert not fields["tie_word_embeddings"] and fields["rope_scaling"]["rope_type"] == "yarn"
    assert fields["rope_scaling"]["original_max_position_embeddings"] >= 256
    special = Codec(BUILT_IN).tokenizer.special_tokens
    assert fields["eos_token_id"] == special["<|return|>"] and fields["pad_token_id"] == special["<|endoftext|>"]
    assert sum(path.stat().st_size for path in BUILT_IN.iterdir()) <= 12e6
    shown = (BUILT_IN / "README.md").read_text()
    assert all(domain.license in shown for domain in corpus.DOMAINS)
