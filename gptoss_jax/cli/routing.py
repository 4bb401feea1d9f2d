"""``trace`` and ``demo``: the routing of a text, as numbers, pictures and an explorer."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptoss_jax.cli.options import (
    add_model,
    add_sampling,
    conversation_tokens,
    load_model,
    need_tokenizer,
    sampling,
    token_list,
)

if TYPE_CHECKING:
    from gptoss_jax.tracing import Trace

DEMO_TEXT = (
    "It is a truth universally acknowledged, that a single man in possession of a good fortune, "
    "must be in want of a wife."
)
LONGEST = 4096  # tokens of one file that are traced unless --max-tokens says otherwise


def add_trace(parser: argparse.ArgumentParser) -> None:
    """Options of ``trace``."""
    parser.epilog = """examples:
  gptoss-jax trace --prompt "Once upon a time" --out out/story
  gptoss-jax trace --message "What is 7+8?" --effort high --max-new-tokens 64 --out out/sum
  gptoss-jax trace --file essay.txt --out out/essay
  gptoss-jax trace --domains texts/ --out out/domains          (one sub-trace a file; the file's name is its domain)
  gptoss-jax trace --conversation chat.json --out out/chat
  gptoss-jax trace --recorded vllm.npz --out out/vllm          (routed_experts or router_logits recorded elsewhere)

writes trace.npz, figures/*.png with figures/README.md (their descriptions), and explorer.html"""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--prompt", metavar="TEXT", help="trace this text")
    what.add_argument("--message", metavar="TEXT", help="trace this message to the model, in the Harmony format")
    what.add_argument("--tokens", type=token_list, metavar="IDS", help="trace these ids, e.g. 1,2,3")
    what.add_argument("--file", type=Path, help="trace this UTF-8 text file")
    what.add_argument("--domains", type=Path, metavar="DIR", help="trace every .txt file of a folder and compare them")
    what.add_argument("--conversation", type=Path, metavar="JSON", help="trace a Harmony conversation")
    what.add_argument("--recorded", type=Path, metavar="FILE.npz", help="read a trace, also one recorded elsewhere")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--compact", action="store_true", help="leave the full router logits out of trace.npz")
    parser.add_argument(
        "--max-tokens", type=int, default=LONGEST, metavar="N", help="of each text; default: %(default)s"
    )
    parser.add_argument("--effort", choices=["low", "medium", "high"], default="medium", help="with --message")
    add_sampling(parser, new_tokens=0)
    add_model(parser)
    parser.set_defaults(run=_trace)


def _trace(options: argparse.Namespace) -> int:
    if options.max_tokens < 1:
        raise ValueError(f"--max-tokens must be at least 1, not {options.max_tokens}")
    if options.recorded is not None:
        return _write(options, {"trace": _read_recorded(options.recorded)})
    model, tokenizer = load_model(options)
    sequences = _sequences(options, tokenizer)
    return _write(options, _record(options, model, tokenizer, sequences))


def _sequences(options: argparse.Namespace, tokenizer: Any) -> dict[str, list[int]]:
    """Name -> ids of every text asked for."""
    if options.tokens is not None:
        return {"trace": options.tokens}
    if options.message is not None:
        return {"trace": conversation_tokens(need_tokenizer(tokenizer, "--message"), options.message, options.effort)}
    if options.conversation is not None:
        from gptoss_jax import harmony

        text = options.conversation.read_text(encoding="utf-8")
        conversation = harmony.Conversation.from_json(text)
        encoding = harmony.Encoding(need_tokenizer(tokenizer, "--conversation"))
        keep = harmony.RenderConversationConfig(auto_drop_analysis=False)
        return {"trace": encoding.render_conversation(conversation, keep)}
    if options.prompt is not None:
        return {"trace": need_tokenizer(tokenizer, "--prompt").encode(options.prompt)}
    files = [options.file] if options.file is not None else sorted(options.domains.glob("*.txt"))
    if not files:
        raise ValueError(f"{options.domains}: no .txt file; give a folder with one text a domain")
    texts = {path.stem: path.read_text(encoding="utf-8") for path in files}
    encode = need_tokenizer(tokenizer, "the text").encode_ordinary
    return {name: encode(text)[: options.max_tokens] for name, text in texts.items()}


def _record(
    options: argparse.Namespace, model: Any, tokenizer: Any, sequences: dict[str, list[int]]
) -> dict[str, "Trace"]:
    from rich.progress import track

    from gptoss_jax.tracing import trace, trace_generation

    traces = {}
    for name, tokens in track(sequences.items(), "Tracing", total=len(sequences), transient=True):
        if options.max_new_tokens:
            stop: Sequence[int] = ()
            if options.message is not None:
                from gptoss_jax import harmony

                stop = harmony.Encoding(tokenizer).stop_tokens_for_assistant_actions()
            traces[name] = trace_generation(
                model, tokens, options.max_new_tokens, stop_tokens=stop, tokenizer=tokenizer, **sampling(options)
            )
        else:
            traces[name] = trace(model, tokens, tokenizer=tokenizer, logits=False)
    return traces


def _read_recorded(path: Path) -> "Trace":
    """A trace of ours, or an .npz with ``routed_experts`` (vLLM) or ``router_logits`` (transformers) and ``tokens``."""
    import numpy as np

    from gptoss_jax.routing import foreign
    from gptoss_jax.tracing import Trace, TraceError

    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, TypeError, OSError) as error:
        raise TraceError(f"{path}: cannot be read as .npz: {error}") from None
    if "meta" in arrays:
        return Trace.load(path)
    if "tokens" not in arrays or not {"routed_experts", "router_logits"} & set(arrays):
        raise TraceError(f"{path}: needs tokens and either routed_experts or router_logits, not {sorted(arrays)}")
    prompt = int(arrays.get("prompt_length", len(arrays["tokens"])))
    if "router_logits" in arrays:
        count = int(arrays.get("experts_per_token", 4))
        return foreign.from_transformers(list(arrays["router_logits"]), arrays["tokens"], count, model=path.stem)
    if "num_experts" not in arrays:
        raise TraceError(f"{path}: routed_experts does not say how many experts there are; add the array num_experts")
    tokens = arrays["tokens"]
    return foreign.from_vllm(
        arrays["routed_experts"], int(arrays["num_experts"]), tokens[:prompt], tokens[prompt:], model=path.stem
    )


def _write(options: argparse.Namespace, traces: dict[str, "Trace"]) -> int:
    from rich.progress import track

    from gptoss_jax.routing import metrics
    from gptoss_jax.routing.explorer import explorer
    from gptoss_jax.routing.report import drawings

    options.out.mkdir(parents=True, exist_ok=True)
    figures = options.out / "figures"
    figures.mkdir(exist_ok=True)
    trace, labels, groups = metrics.join(traces)
    trace.save(options.out / "trace.npz", compact=options.compact)
    if len(traces) > 1:
        for name, one in traces.items():
            one.save(options.out / f"{name}.npz", compact=options.compact)
    rows = []
    for name, drawing in track(drawings(trace, labels, groups), "Drawing", total=None, transient=True):
        drawing.save(figures / f"{name}.png")
        rows.append(f"## {name}\n\n![{drawing.alt}]({name}.png)\n\n{drawing.summary}\n")
    (figures / "README.md").write_text("# Figures\n\n" + "\n".join(rows), encoding="utf-8")
    explorer(trace, title=f"Experts: {options.out.name}").save(options.out / "explorer.html")
    print(trace)
    print(f"wrote {options.out / 'trace.npz'}, {len(rows)} figures in {figures}, {options.out / 'explorer.html'}")
    return 0


def add_demo(parser: argparse.ArgumentParser) -> None:
    """Options of ``demo``."""
    parser.epilog = "example:\n  gptoss-jax demo --out out/demo"
    parser.add_argument("--text", default=DEMO_TEXT, help="the text; default: the opening of Pride and Prejudice")
    parser.add_argument("--out", type=Path, default=Path("out/demo"), metavar="DIR", help="default: %(default)s")
    parser.add_argument("--compact", action="store_true", help=argparse.SUPPRESS)
    add_model(parser)
    parser.set_defaults(run=_demo)


def _demo(options: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    import gptoss_jax as gj

    model, tokenizer = load_model(options)
    tokens = need_tokenizer(tokenizer, "the text").encode_ordinary(options.text)
    trace = gj.trace(model, tokens, tokenizer=tokenizer)
    config = model.config
    table = Table(
        title=f"{model.name}: the {config.experts_per_token} experts of {config.num_experts} that serve each token"
    )
    table.add_column("token")
    shown = range(min(config.num_layers, 6))
    for layer in shown:
        table.add_column(f"layer {layer}", justify="right")
    for text, experts in zip(trace.token_text, trace.experts, strict=True):
        table.add_row(json.dumps(text, ensure_ascii=False), *(" ".join(map(str, experts[layer])) for layer in shown))
    Console().print(table)
    continuation = list(gj.generate(model, tokens, 32))
    print(f"The model continues: {tokenizer.decode(continuation)!r}")
    return _write(options, {"trace": trace})
