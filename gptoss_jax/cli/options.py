"""Options that several commands share, and what they stand for."""

import argparse
from pathlib import Path
from typing import Any


def add_model(parser: argparse.ArgumentParser) -> None:
    """``--checkpoint``, ``--dtype``, ``--first-layers``, ``--lazy-experts``."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--checkpoint", type=Path, metavar="DIR", help="folder in either layout; default: the built-in model"
    )
    group.add_argument(
        "--dtype",
        choices=["float32", "bfloat16"],
        help="of the activations; default: float32 for the built-in model, else bfloat16",
    )
    group.add_argument("--first-layers", type=int, metavar="N", help="load only the first N layers")
    group.add_argument(
        "--lazy-experts",
        action="store_true",
        help="leave the experts in the files and read one when a token chooses it: slow, but it needs little memory",
    )


def load_model(options: argparse.Namespace) -> tuple[Any, Any]:
    """(model, tokenizer) as the options ask, with a progress bar where it takes long."""
    import gptoss_jax as gj

    return gj.load(
        options.checkpoint, options.dtype, first_layers=options.first_layers, lazy_experts=options.lazy_experts
    )


def add_sampling(parser: argparse.ArgumentParser, *, new_tokens: int) -> None:
    """``--max-new-tokens``, ``--temperature``, ``--top-k``, ``--top-p``, ``--seed``."""
    group = parser.add_argument_group("generation")
    group.add_argument("--max-new-tokens", type=int, default=new_tokens, metavar="N", help="default: %(default)s")
    group.add_argument("--temperature", type=float, default=0.0, metavar="T", help="0 is greedy; default: %(default)s")
    group.add_argument("--top-k", type=int, metavar="K", help="sample among the K most likely tokens")
    group.add_argument("--top-p", type=float, default=1.0, metavar="P", help="sample within this probability")
    group.add_argument("--seed", type=int, default=0, help="default: %(default)s")


def sampling(options: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments for `generate` and its like."""
    return {name: getattr(options, name) for name in ("temperature", "top_k", "top_p", "seed")}


def need_tokenizer(tokenizer: Any, option: str) -> Any:
    """The tokenizer, or an error that says what to do without one."""
    if tokenizer is None:
        raise ValueError(f"this checkpoint folder has no tokenizer, so {option} cannot be encoded; give --tokens 1,2,3")
    return tokenizer


def token_list(text: str) -> list[int]:
    """``1,2,3`` as ids."""
    try:
        return [int(word) for word in text.replace(",", " ").split()]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of ids such as 1,2,3") from None


def conversation_tokens(tokenizer: Any, message: str, effort: str) -> list[int]:
    """A Harmony prompt: system message with the effort, the user's message, and the assistant's turn."""
    from gptoss_jax import harmony

    system = harmony.SystemContent().with_reasoning_effort(harmony.ReasoningEffort(effort.capitalize()))
    conversation = harmony.Conversation.from_messages(
        [
            harmony.Message.from_role_and_content(harmony.Role.SYSTEM, system),
            harmony.Message.from_role_and_content(harmony.Role.USER, message),
        ]
    )
    return harmony.Encoding(tokenizer).render_conversation_for_completion(conversation, harmony.Role.ASSISTANT)
