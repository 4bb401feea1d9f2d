"""``generate`` and ``chat``."""

import argparse
import sys

from gptoss_jax.cli.options import (
    add_model,
    add_sampling,
    conversation_tokens,
    load_model,
    need_tokenizer,
    sampling,
    token_list,
)


def add_generate(parser: argparse.ArgumentParser) -> None:
    """Options of ``generate``."""
    parser.epilog = """examples:
  gptoss-jax generate --prompt "It is a truth universally acknowledged"
  gptoss-jax generate --message "What is 7+8?" --effort high
  gptoss-jax generate --checkpoint ~/gpt-oss-20b --message "Why is the sky blue?" --temperature 1 --max-new-tokens 200
  gptoss-jax generate --tokens 1,2,3 --max-new-tokens 8"""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--prompt", metavar="TEXT", help="continue this text")
    what.add_argument("--message", metavar="TEXT", help="answer this message, in the Harmony format")
    what.add_argument("--tokens", type=token_list, metavar="IDS", help="continue these ids, e.g. 1,2,3; prints ids")
    parser.add_argument("--effort", choices=["low", "medium", "high"], default="medium", help="of the reasoning")
    add_sampling(parser, new_tokens=64)
    add_model(parser)
    parser.set_defaults(run=_generate)


def _generate(options: argparse.Namespace) -> int:
    import gptoss_jax as gj

    model, tokenizer = load_model(options)
    stop: list[int] = []
    if options.tokens is not None:
        prompt = options.tokens
    elif options.message is not None:
        prompt = conversation_tokens(need_tokenizer(tokenizer, "--message"), options.message, options.effort)
        stop = gj.harmony.Encoding(tokenizer).stop_tokens_for_assistant_actions()
    else:
        prompt = need_tokenizer(tokenizer, "--prompt").encode(options.prompt)
    stream = gj.generate(model, prompt, options.max_new_tokens, stop_tokens=stop, **sampling(options))
    if options.tokens is not None:
        print(",".join(map(str, stream)))
        return 0
    decoder = tokenizer.stream()
    for token in stream:
        sys.stdout.write(decoder.push(token))
        sys.stdout.flush()
    print(decoder.flush())
    return 0


def add_chat(parser: argparse.ArgumentParser) -> None:
    """Options of ``chat``."""
    parser.epilog = """examples:
  gptoss-jax chat
  gptoss-jax chat --effort high
  gptoss-jax chat --checkpoint ~/gpt-oss-20b --temperature 1

in the chat: /effort low|medium|high, /save FILE, /help, /quit; Ctrl-C stops the answer, not the program"""
    parser.add_argument("--effort", choices=["low", "medium", "high"], default="medium", help="of the reasoning")
    add_sampling(parser, new_tokens=512)
    add_model(parser)
    parser.set_defaults(run=_chat)


def _chat(options: argparse.Namespace) -> int:
    from gptoss_jax.nano.chat import chat

    model, tokenizer = load_model(options)
    chat(
        model,
        need_tokenizer(tokenizer, "the conversation"),
        effort=options.effort,
        max_new_tokens=options.max_new_tokens,
        **sampling(options),
    )
    return 0
