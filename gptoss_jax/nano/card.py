"""The model card: written from the report of `evaluate` and the log of the training run, never by hand.

python -m gptoss_jax.nano.card --weights gptoss_jax/nano/weights --report report.json --runs runs/long runs/final
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gptoss_jax import roofline
from gptoss_jax.config import ConfigError, ModelConfig
from gptoss_jax.nano import metrics, state
from gptoss_jax.nano.corpus import DOMAINS
from gptoss_jax.nano.evaluate import LOAD, TELLS
from gptoss_jax.nano.plan import TrainError


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def shape(config: ModelConfig) -> str:
    """The model in one paragraph."""
    c, count = config, roofline.parameters(config)
    return (
        f"{count.total / 1e6:.2f} M parameters, {roofline.active_parameters(c) / 1e6:.2f} M read per token: "
        f"{c.num_layers} layers (window of {c.sliding_window} and full attention in turns), width {c.hidden_size}, "
        f"{c.num_attention_heads} query heads over {c.num_key_value_heads} key/value heads of {c.head_dim}, "
        f"{c.num_experts} experts of width {c.intermediate_size} in every layer, {c.experts_per_token} per token, "
        f"attention sinks, clamped SwiGLU, YaRN from {c.rope_original_context} to {c.max_context} positions, untied "
        f"embeddings, {c.num_tokens:,} tokens. Experts in MXFP4, everything else bfloat16."
    )


def training(runs: Sequence[Path]) -> str:
    """What each phase did, by the state and the log in its folder."""
    rows = []
    for number, folder in enumerate(runs, 1):
        now, plan = state.restore(folder)
        log = metrics.read(folder)
        last = {name: f"{log[name][-5:].mean():.3f}" if len(log[name]) else "" for name in ("text", "dialog")}
        tokens = int(now.step) * plan["rows"] * plan["length"]
        kind = "4-bit experts" if plan["quantize"] else "float"
        falls = "falling" if plan["fall"] else "level"
        rate = f"{plan['rate']:g}, {falls}"
        share = f"{plan['text_share']:.0%}"
        row = [number, kind, f"{int(now.step):,}", f"{tokens / 1e6:.2f} M", share, rate, last["text"], last["dialog"]]
        rows.append(row)
    head = ["phase", "experts", "steps", "tokens", "rows of text", "learning rate", "text loss", "assistant loss"]
    return table(head, rows) + "\n\nLosses in nats per token, means of the last lines of the log."


def text(report: dict[str, Any]) -> str:
    """Bits per byte beside the baseline."""
    base, rows, beaten = report["baselines"], [], 0
    for name, row in report["text"].items():
        better = row["bits_per_byte"] < base.get(name, 0)
        beaten += better
        ours = f"{row['bits_per_byte']:.3f}"
        control = f"{row['control']:.3f}" if "control" in row else "not measured"
        rows.append([name, f"{row['bytes']:,}", f"**{ours}**" if better else ours, base.get(name, ""), control])
    head = ["text", "bytes", "this model", "order-4 Witten-Bell", "same training with float experts"]
    both = [row for row in report["text"].values() if "control" in row]
    cost = max((row["bits_per_byte"] / row["control"] - 1 for row in both), default=0.0)
    mean = sum(row["bits_per_byte"] / row["control"] - 1 for row in both) / max(len(both), 1)
    price = f" Four bits cost {mean:+.2%} on average and {cost:+.2%} at most." if both else ""
    return f"{table(head, rows)}\n\nBelow the baseline on {beaten} of {len(rows)} kinds of text.{price}"


def answers(report: dict[str, Any]) -> str:
    """Accuracy per task and effort, and how far it is from the goals."""
    cells = report["tasks"]
    efforts, rows = list(dict.fromkeys(cell["effort"] for cell in cells)), []
    high = {}
    for name in dict.fromkeys(cell["task"] for cell in cells):
        row: list[Any] = [name]
        for cell in (cell for cell in cells if cell["task"] == name):
            share, (low, up) = cell["right"] / cell["total"], cell["interval"]
            row.append(f"{share:.2f} ({low:.2f} to {up:.2f}), n = {cell['total']}")
            if cell["effort"] == "high":
                high[name] = share
        rows.append(row)
    good, fair = sum(v >= 0.9 for v in high.values()), sum(v >= 0.6 for v in high.values())
    verdict = f"At high effort {good} of {len(high)} tasks reach 0.90 and {fair} of {len(high)} reach 0.60."
    return f"{table(['task', *efforts], rows)}\n\n{verdict}"


def swaps(report: dict[str, Any]) -> str:
    """What foreign reasoning does to the answers."""
    share = lambda row, name: f"{row[name] / max(row['total'], 1):.2f}"
    rows = [[row["task"], share(row, "changed"), share(row, "followed"), row["total"]] for row in report["swap"]]
    return table(["task", "answer changes", "answer is that of the foreign reasoning", "prompts"], rows)


def layers(report: dict[str, Any]) -> str:
    """The experts."""
    found, columns = report["experts"], {**LOAD, **TELLS}
    rows = [[i, *(f"{found[name][i]:.3g}" for name in columns)] for i in range(len(found["dead"]))]
    triple = sum(a >= 3 * b for a, b in zip(found["information"], found["untrained"], strict=True))
    above = sum(a > b for a, b in zip(found["given_token_low"], found["given_token_shuffled_high"], strict=True))
    return (
        f"{table(['layer', *columns.values()], rows)}\n\n{sum(found['dead'])} dead experts. I(expert; text) is at "
        f"least three times that of an untrained network in {triple} of {len(rows)} layers. Given the token, it lies "
        f"above its shuffles, intervals included, in {above} of {len(rows)} layers."
    )


def write(weights: Path, report: dict[str, Any], runs: Sequence[Path], status: str) -> Path:
    """Write ``README.md`` beside the weights, with the figures of the runs."""
    config = ModelConfig.from_file(weights / "config.json")
    columns, ends = metrics.join(runs)
    metrics.plot(columns, weights / "training.png", ends)
    lines = zip(*columns.values(), strict=True)
    text_of = [",".join(columns), *(",".join(f"{value:.6g}" for value in line) for line in lines)]
    _write(weights / "training.csv", "\n".join(text_of) + "\n")
    sources = table(["text", "what", "package", "license"], [[d.name, d.what, d.package, d.license] for d in DOMAINS])
    section = lambda title, part, make: f"## {title}\n\n{make(report)}\n" if part in report else ""
    card = f"""---
license: apache-2.0
tags: [gpt_oss, mxfp4, harmony, education]
---
# gpt-oss nano

A miniature of gpt-oss, trained from random weights for this project, so that routing can be looked at without 13 GB of
weights. {shape(config)}

{status}

## What it can and cannot do

It continues ten kinds of text and answers eight kinds of small tasks in the Harmony format, at three reasoning efforts,
one of them through a calculator tool. It knows nothing of the world, follows no instructions beyond these tasks, and
must not be used for anything but study. The tables say how well it does what it was trained for; where a number is low,
it is low.

## Data

{sources}

Every 40th block of 4 kB is held out and de-duplicated against the rest. The conversations are generated
(`gptoss_jax.nano.dialogs`); one prompt in sixteen, by its hash, is never trained on. The vocabulary is o200k pruned to
4,096 tokens, single digits, and 21 special tokens; `o200k_ids.json` leads from each id to its o200k_harmony id.

## Training

{training(runs)}

![Losses, load of the experts and learning rate; thin lines where a phase ends](training.png)

{section("Held-out text, bits per byte", "text", text)}
{section("Answers, written freely and compared exactly", "tasks", answers)}
{section("Is the reasoning used? High effort, the reasoning of another prompt", "swap", swaps)}
{section("Experts on the held-out text (information in nats)", "experts", layers)}
Measured by `gptoss-jax eval` with seed {report["seed"]}; checkpoint {report["hash"][:16]}.
"""
    while "\n\n\n" in card:
        card = card.replace("\n\n\n", "\n\n")
    return _write(weights / "README.md", card)


def _write(path: Path, text: str) -> Path:
    """The whole file or none of it."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m gptoss_jax.nano.card", description=__doc__, formatter_class=style)
    parser.add_argument("--weights", type=Path, required=True, help="checkpoint folder")
    parser.add_argument(
        "--report", type=Path, nargs="+", required=True, help="JSON of gptoss-jax eval --out; parts add up"
    )
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="folders of the phases, in order")
    parser.add_argument("--status", default="", help="a sentence on the state of the training")
    given = parser.parse_args(arguments)
    try:
        report: dict[str, Any] = {}
        for path in given.report:
            report |= json.loads(path.read_text(encoding="utf-8"))
        print(write(given.weights, report, given.runs, given.status))
    except (OSError, json.JSONDecodeError, TrainError, ConfigError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
