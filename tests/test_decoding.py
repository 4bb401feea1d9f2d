"""Generation: equal to the uncached model, in batches, in streams, within bounds."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

import gptoss_jax as gj
from gptoss_jax.config import TINY
from gptoss_jax.decoding import Decoder, generate, generate_batch
from gptoss_jax.sampling import Sampling

RNG = np.random.default_rng(0)
PROMPT = RNG.integers(0, 320, 50).tolist()


@pytest.fixture(scope="module")
def model():
    return gj.GptOss(TINY, rngs=nnx.Rngs(0))


def test_greedy_equals_the_argmax_of_the_uncached_model(model):
    new = list(generate(model, PROMPT, 40))  # past five wraps of the ring
    logits = np.asarray(model(PROMPT + new))[len(PROMPT) - 1 : -1]
    top = np.sort(logits, axis=-1)
    clear = top[:, -1] - top[:, -2] > 1e-4
    assert len(new) == 40
    assert clear.sum() > 30
    assert (logits.argmax(-1) == new)[clear].all()


def test_a_batch_of_different_lengths_equals_single_runs(model):
    W = TINY.sliding_window
    prompts = [PROMPT[:1], PROMPT[: W - 1], PROMPT[:W], PROMPT[: 3 * W], PROMPT]
    together = generate_batch(model, prompts, 20)
    assert together == [list(generate(model, prompt, 20)) for prompt in prompts]


@pytest.mark.parametrize("chunk", [1, 3, 8, 9, 64])
def test_chunks_of_the_prompt_do_not_matter(model, chunk):
    decoder = Decoder(model, [PROMPT], 8, sampling=Sampling.checked(), chunk=chunk)
    tokens = [int(decoder.tokens[0]), *decoder.step(7).tokens[0].tolist()]
    assert tokens == list(generate(model, PROMPT, 8))


def test_a_stop_token_is_yielded_and_ends_the_stream(model):
    free = list(generate(model, PROMPT, 40))
    stop = free[5]
    first = free.index(stop)
    assert list(generate(model, PROMPT, 40, stop_tokens=[stop])) == free[: first + 1]
    assert list(generate(model, PROMPT, 40, stop_tokens=())) == free
    assert generate_batch(model, [PROMPT, PROMPT[:9]], 40, stop_tokens=[stop])[0] == free[: first + 1]


def test_one_token(model):
    assert list(generate(model, PROMPT, 1)) == list(generate(model, PROMPT, 5))[:1]


def test_sampling_repeats_with_its_seed_and_not_with_another(model):
    runs = [list(generate(model, PROMPT, 20, temperature=1.5, seed=s)) for s in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_padding_rows_of_the_vocabulary_are_never_written():
    config = dataclasses.replace(TINY, num_tokens=3)
    small = gj.GptOss(config, rngs=nnx.Rngs(0))
    assert set(generate(small, [1], 30, temperature=100.0)) <= {0, 1, 2}


def test_changing_what_is_sampled_compiles_nothing_new(model):
    from gptoss_jax.decoding import decoder

    list(generate(model, PROMPT, 4, max_len=128))
    before = decoder._decode._cache_size()
    list(generate(model, PROMPT[:40], 9, temperature=0.7, top_p=0.9, top_k=3, seed=5, stop_tokens=[3], max_len=128))
    assert decoder._decode._cache_size() == before


def test_the_cache_is_donated(model):
    decoder = Decoder(model, [PROMPT], 8, sampling=Sampling.checked())
    old = decoder._cache.full_key
    decoder.step(3)
    assert old.is_deleted()


def test_recorded_routing_equals_teacher_forcing(model):
    live = gj.tracing.trace_generation(model, PROMPT, 20)
    forced = gj.trace(model, live.tokens, prompt_length=len(PROMPT))
    assert live.tokens[len(PROMPT) :].tolist() == list(generate(model, PROMPT, 20))
    assert np.array_equal(live.generated, forced.generated)
    assert live.generated.sum() == 20
    np.testing.assert_allclose(live.router_logits, forced.router_logits, atol=1e-5)
    assert np.array_equal(live.experts, forced.experts)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(prompt_ids=[]), "empty"),
        (dict(prompt_ids=[320]), "320"),
        (dict(prompt_ids=[1, -1]), "-1"),
        (dict(prompt_ids=[1.5]), "integers"),
        (dict(prompt_ids=[1], max_new_tokens=0), "max_new_tokens"),
        (dict(prompt_ids=[1], max_new_tokens=131_072), "context"),
        (dict(prompt_ids=[1] * 10, max_new_tokens=10, max_len=16), "max_len"),
        (dict(prompt_ids=[1], temperature=float("nan")), "temperature"),
        (dict(prompt_ids=[1], top_p=0.0), "top_p"),
        (dict(prompt_ids=[1], stop_tokens=[999]), "999"),
    ],
)
def test_bad_input_is_named_at_the_call(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        generate(model, **arguments)  # not iterated


def test_bad_batches_are_named(model):
    with pytest.raises(ValueError, match="no prompts"):
        generate_batch(model, [])
    with pytest.raises(ValueError, match="empty"):
        generate_batch(model, [[1], []])
    with pytest.raises(ValueError, match="chunk"):
        Decoder(model, [[1]], 1, sampling=Sampling.checked(), chunk=0)


def test_interrupting_a_stream_leaves_the_model_usable(model):
    stream = generate(model, PROMPT, 40)
    next(stream)
    stream.close()
    assert len(list(generate(model, PROMPT, 3))) == 3
    assert jax.tree.leaves(model)[0].is_deleted() is False
