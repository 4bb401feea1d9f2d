"""Measure a small gpt-oss: bits per byte of held-out text, answers to fresh prompts, experts, the cost of 4 bits.

gptoss-jax eval                                  # the built-in model, everything: long
gptoss-jax eval --quick                          # a look: little text, few prompts
gptoss-jax eval --checkpoint DIR --tasks add sort --prompts 500 --seed 7
gptoss-jax eval --texts DIR                      # other text: <domain>.txt or .txt.xz
gptoss-jax eval --control runs/bf16              # a run whose experts stay float: what do 4 bits cost?
"""

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from gptoss_jax import checkpoint
from gptoss_jax.config import ConfigError
from gptoss_jax.model import GptOss
from gptoss_jax.nano import dialogs, network, samples, state
from gptoss_jax.nano.corpus import CorpusError
from gptoss_jax.nano.evaluation import experts, tasks, text
from gptoss_jax.nano.export import to_model
from gptoss_jax.nano.plan import TrainError
from gptoss_jax.nano.rendering import Codec

PARTS = ("text", "experts", "tasks", "swap")
SWAPPED = ("reverse", "sort", "day", "recall", "add")
Report = dict[str, Any]


def evaluate(
    model: GptOss,
    codec: Codec,
    documents: Mapping[str, Sequence[str]],
    *,
    parts: Sequence[str] = PARTS,
    names: Sequence[str] = tuple(dialogs.TASKS),
    efforts: Sequence[str] = dialogs.EFFORTS,
    prompts: int = 500,
    seed: int = 0,
    control: Mapping[str, Any] | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Report:
    """Measure a model.

    Args:
      model: to be measured.
      codec: its tokenizer.
      documents: kind of text -> pieces of it.
      parts: what to measure, of `PARTS`.
      names: tasks.
      efforts: of the reasoning.
      prompts: per task and effort.
      seed: of the prompts.
      control: float weights of a model whose experts were not rounded.
      tell: hears about progress.

    Returns:
      Nested dictionaries of numbers, ready for JSON.
    """
    report: Report = {"model": model.name, "hash": model.checkpoint_hash, "seed": seed}
    readings = {}
    if documents and ({"text", "experts"} & set(parts)):
        for name, pieces in documents.items():
            readings[name] = text.read(model, codec.tokenizer, pieces)
            tell(f"{name}: {readings[name].bits_per_byte:.3f} bits per byte")
        report["text"] = {name: {"bits_per_byte": r.bits_per_byte, "bytes": r.size} for name, r in readings.items()}
    if control is not None and readings:
        dispatch = text.FloatExperts(control, model.config)
        dense = to_model(dict(control), model.config)
        for name, pieces in documents.items():
            bits = text.read(dense, codec.tokenizer, pieces, dispatch=dispatch).bits_per_byte
            report["text"][name]["control"] = bits
            tell(f"{name}: {bits:.3f} bits per byte with float experts")
    if "experts" in parts and readings:
        blank = to_model({k: jax.numpy.asarray(v) for k, v in network.init(model.config, 1).items()}, model.config)
        before = {name: text.read(blank, codec.tokenizer, pieces) for name, pieces in documents.items()}
        found = experts.measure(readings, before, model.config.num_experts)
        report["experts"] = {name: np.asarray(value).tolist() for name, value in dataclasses.asdict(found).items()}
        tell("experts measured")
    if "tasks" in parts:
        report["tasks"] = []
        for name in names:
            for effort in efforts:
                cell = tasks.measure(model, codec, name, effort, prompts, seed)
                report["tasks"].append({**dataclasses.asdict(cell), "interval": list(cell.interval)})
                tell(f"{name}, {effort}: {cell.right} of {cell.total}")
    if "swap" in parts:
        chosen = [name for name in SWAPPED if name in names]
        report["swap"] = [dataclasses.asdict(tasks.swap(model, codec, name, prompts, seed)) for name in chosen]
    return report


def tables(report: Report, baselines: Mapping[str, float]) -> list[Table]:
    """The report for people."""
    out = []
    if "text" in report:
        table = _table("Held-out text, bits per byte", "text", "bytes", "model", "order-4 Witten-Bell", "float experts")
        for name, row in report["text"].items():
            base = f"{baselines[name]:.3f}" if name in baselines else ""
            control = f"{row['control']:.3f}" if "control" in row else ""
            table.add_row(name, f"{row['bytes']:,}", f"{row['bits_per_byte']:.3f}", base, control)
        out.append(table)
    if "tasks" in report:
        efforts = list(dict.fromkeys(cell["effort"] for cell in report["tasks"]))
        table = _table("Exact answers, 95 % Wilson intervals", "task", *efforts, "prompts")
        for name in dict.fromkeys(cell["task"] for cell in report["tasks"]):
            row = {cell["effort"]: cell for cell in report["tasks"] if cell["task"] == name}
            shown = [
                f"{c['right'] / c['total']:.2f} ({c['interval'][0]:.2f}-{c['interval'][1]:.2f})" for c in row.values()
            ]
            table.add_row(name, *shown, str(min(cell["total"] for cell in row.values())))
        out.append(table)
    if "swap" in report:
        table = _table("Reasoning of another prompt", "task", "answer changed", "answer follows it", "prompts")
        for row in report["swap"]:
            shares = [f"{row[name] / max(row['total'], 1):.2f}" for name in ("changed", "followed")]
            table.add_row(row["task"], *shares, str(row["total"]))
        out.append(table)
    if "experts" in report:
        found = report["experts"]
        for title, columns in (("Load of the experts", LOAD), ("What an expert tells about the text, nats", TELLS)):
            table = _table(title, "layer", *columns.values())
            for layer in range(len(found["dead"])):
                table.add_row(str(layer), *(f"{found[name][layer]:.3g}" for name in columns))
            out.append(table)
    return out


LOAD = {"dead": "dead", "entropy": "entropy / ln E", "least": "least", "most": "most"}
TELLS = {
    "information": "I(expert; text)",
    "shuffled": "shuffled",
    "untrained": "untrained",
    "given_token": "given token",
    "given_token_low": "95 % from",
    "given_token_shuffled_high": "shuffled to",
}


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left")
    return table


def parser() -> argparse.ArgumentParser:
    """The command line."""
    style = argparse.RawDescriptionHelpFormatter
    found = argparse.ArgumentParser("gptoss-jax eval", description=__doc__, formatter_class=style)
    found.add_argument("--checkpoint", type=Path, metavar="DIR", help="default: the built-in model")
    found.add_argument("--texts", type=Path, metavar="DIR", help="default: the held-out sample in the package")
    found.add_argument("--bytes", type=int, metavar="N", help="at most about so much of every kind of text")
    found.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="default: all")
    found.add_argument("--tasks", nargs="+", choices=list(dialogs.TASKS), default=list(dialogs.TASKS), metavar="TASK")
    found.add_argument("--efforts", nargs="+", choices=dialogs.EFFORTS, default=dialogs.EFFORTS, metavar="EFFORT")
    found.add_argument("--prompts", type=int, default=500, help="per task and effort (%(default)s)")
    found.add_argument("--seed", type=int, default=0, help="of the prompts (%(default)s)")
    found.add_argument("--control", type=Path, metavar="RUN", help="training run whose experts stay float")
    found.add_argument("--quick", action="store_true", help="8 kB of every text, 64 prompts")
    found.add_argument("--out", type=Path, metavar="FILE", help="write the report as JSON")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; an error is one line on stderr and status 1."""
    given = parser().parse_args(arguments)
    console = Console()
    try:
        model, tokenizer = checkpoint.load(given.checkpoint, dtype="float32")
        if tokenizer is None:
            raise CorpusError(f"{given.checkpoint} has no tokenizer: text and prompts cannot be encoded")
        codec = Codec(tokenizer)
        size, count = (8_000, 64) if given.quick else (given.bytes, given.prompts)
        if count < 1:
            raise CorpusError(f"--prompts must be at least 1, not {count}")
        needed = {"text", "experts"} & set(given.parts)
        texts = samples.read(given.texts) if needed else {}
        texts = {name: text.shortened(pieces, size) for name, pieces in texts.items()}
        control = state.restore(given.control)[0].params if given.control else None
        report = evaluate(
            model,
            codec,
            texts,
            parts=given.parts,
            names=given.tasks,
            efforts=given.efforts,
            prompts=count,
            seed=given.seed,
            control=control,
            tell=lambda line: print(line, file=sys.stderr, flush=True),
        )
        report["baselines"] = samples.baselines() if given.texts is None else {}
        for table in tables(report, report["baselines"]):
            console.print(table)
        if given.out:
            partial = given.out.with_name(f"{given.out.name}.partial")
            partial.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
            os.replace(partial, given.out)
        return 0
    except (checkpoint.CheckpointError, ConfigError, CorpusError, TrainError, OSError, ValueError) as error:
        print(f"gptoss-jax eval: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
