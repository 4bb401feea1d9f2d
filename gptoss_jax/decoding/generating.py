"""`generate` streams one continuation, `generate_batch` completes many prompts together."""

from collections.abc import Collection, Iterator, Sequence

import numpy as np

from gptoss_jax.decoding.decoder import DECODE_CHUNK, Decoder, check_request
from gptoss_jax.interventions import Intervention
from gptoss_jax.model import GptOss
from gptoss_jax.sampling import Sampling


def generate(
    model: GptOss,
    prompt_ids: Sequence[int],
    max_new_tokens: int = 64,
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    seed: int = 0,
    stop_tokens: Collection[int] = (),
    max_len: int | None = None,
    change: Intervention | None = None,
) -> Iterator[int]:
    """Stream the continuation of a prompt, token by token.

    Args:
      model: the model.
      prompt_ids: ids of the prompt, at least one.
      max_new_tokens: how many tokens to write at most.
      temperature: 0 is greedy; the released models recommend 1.
      top_k, top_p: restrict sampling to likely tokens.
      seed: equal seeds give equal text on the same machine.
      stop_tokens: a stop token is yielded, then the stream ends; () never stops early.
      max_len: cache length; chosen from the prompt if None. Equal lengths share one compiled program.
      change: `Intervention` on the routing.

    Returns:
      An iterator of ints. Input is checked at the call, not at the first token.

    Raises:
      ValueError: names the argument that is out of range.
    """
    sampling = Sampling.checked(temperature, top_k, top_p, seed)
    check_request(model.config, [prompt_ids], max_new_tokens, stop_tokens, max_len)

    def stream() -> Iterator[int]:
        decoder = Decoder(
            model,
            [prompt_ids],
            max_new_tokens,
            sampling=sampling,
            stop_tokens=stop_tokens,
            max_len=max_len,
            change=change,
        )
        yield int(decoder.tokens[0])
        written, chunk = 1, 1
        while written < max_new_tokens and not decoder.done[0]:
            new = decoder.step(min(chunk, max_new_tokens - written)).tokens[0].tolist()
            yield from new
            written, chunk = written + len(new), min(2 * chunk, DECODE_CHUNK)

    return stream()


def generate_batch(
    model: GptOss,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int = 64,
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    seed: int = 0,
    stop_tokens: Collection[int] = (),
    max_len: int | None = None,
    change: Intervention | None = None,
) -> list[list[int]]:
    """Complete prompts of different lengths together; arguments as for `generate`.

    Returns:
      One list of new ids per prompt, each ended by its stop token if it met one.
    """
    decoder = Decoder(
        model,
        prompts,
        max_new_tokens,
        sampling=Sampling.checked(temperature, top_k, top_p, seed),
        stop_tokens=stop_tokens,
        max_len=max_len,
        change=change,
    )
    columns = [decoder.tokens[:, None]]
    while sum(c.shape[1] for c in columns) < max_new_tokens and not decoder.done.all():
        columns.append(decoder.step(max_new_tokens - sum(c.shape[1] for c in columns)).tokens)
    return [_until_stop(row, stop_tokens) for row in np.concatenate(columns, axis=1).tolist()]


def _until_stop(tokens: list[int], stop_tokens: Collection[int]) -> list[int]:
    ends = [i + 1 for i, token in enumerate(tokens) if token in stop_tokens]
    return tokens[: ends[0]] if ends else tokens
