"""Recording: one pass, long sequences through the cache, folders of sequences, labels."""

import dataclasses

import numpy as np
import pytest
from flax import nnx

import gptoss_jax as gj
from gptoss_jax import tracing
from gptoss_jax.config import TINY
from gptoss_jax.tracing import Trace, recorder

TOKENS = np.random.default_rng(0).integers(0, 320, 60)


@pytest.fixture(scope="module")
def model():
    return gj.GptOss(TINY, rngs=nnx.Rngs(0))


def test_contract_of_shapes_order_and_sums(model):
    trace = gj.trace(model, TOKENS)
    T, L, E, X, V = 60, 4, 8, 4, 320
    assert trace.router_logits.shape == (T, L, E)
    assert trace.router_logits.dtype == np.float32
    assert trace.experts.shape == trace.weights.shape == (T, L, X)
    assert trace.logits.shape == (T, V)
    assert (np.diff(trace.weights, axis=-1) <= 0).all()
    np.testing.assert_allclose(trace.weights.sum(-1), 1, atol=1e-6)
    assert np.array_equal(trace.experts, np.argsort(-trace.router_logits, axis=-1, kind="stable")[..., :X])
    np.testing.assert_allclose(trace.logits, model(TOKENS), atol=1e-5)
    assert not trace.generated.any()
    assert (trace.model, trace.dtype) == ("random", "float32")


def test_long_sequences_go_through_the_cache_unchanged(model, monkeypatch):
    whole = gj.trace(model, TOKENS)
    monkeypatch.setattr(recorder, "TRACE_CHUNK", 16)
    chunked = gj.trace(model, TOKENS)
    assert np.array_equal(whole.experts, chunked.experts)
    np.testing.assert_allclose(whole.router_logits, chunked.router_logits, atol=1e-5)
    np.testing.assert_allclose(whole.logits, chunked.logits, atol=1e-5)


def test_logits_can_be_left_out(model):
    assert gj.trace(model, TOKENS, logits=False).logits is None


def test_prompt_and_generated_are_marked(model):
    trace = gj.trace(model, TOKENS, prompt_length=50)
    assert trace.generated.tolist() == [False] * 50 + [True] * 10


def test_generation_is_recorded_up_to_its_stop_token(model):
    free = tracing.trace_generation(model, TOKENS[:20], 12)
    assert len(free) == 32
    stop = int(free.tokens[24])
    cut = tracing.trace_generation(model, TOKENS[:20], 12, stop_tokens=[stop])
    first = 20 + free.tokens[20:].tolist().index(stop)
    assert cut.tokens.tolist() == free.tokens[: first + 1].tolist()
    assert np.array_equal(cut.experts, free.experts[: first + 1])


def test_labels_come_from_the_tokenizer():
    tokenizer = gj.Tokenizer.o200k_harmony()
    config = dataclasses.replace(TINY, vocab_size=201_088, num_tokens=201_088)
    model = gj.GptOss(config, rngs=nnx.Rngs(0))
    encoding = gj.harmony.Encoding(tokenizer)
    conversation = gj.harmony.Conversation.from_messages(
        [gj.harmony.Message.from_role_and_content(gj.harmony.Role.USER, "Hé 💖")]
    )
    tokens = encoding.render_conversation_for_completion(conversation, gj.harmony.Role.ASSISTANT)
    trace = gj.trace(model, tokens, tokenizer=tokenizer, logits=False)
    assert trace.token_text[0] == "<|start|>"
    assert trace.special[0]
    assert "user" in trace.roles
    assert not trace.special[trace.token_text.index("user")]


def test_a_folder_of_sequences(model, tmp_path):
    paths = tracing.trace_files(model, {"a": TOKENS[:10], "b": TOKENS[10:40]}, tmp_path / "out")
    assert [path.name for path in paths] == ["a.npz", "b.npz"]
    b = Trace.load(paths[1])
    assert b.router_logits is None
    assert np.array_equal(b.experts, gj.trace(model, TOKENS[10:40]).experts)
    assert not list((tmp_path / "out").glob("*.partial"))


@pytest.mark.parametrize("name", ["", "a/b", "../a"])
def test_names_that_are_no_file_names_are_refused(model, tmp_path, name):
    with pytest.raises(ValueError, match="file name"):
        tracing.trace_files(model, {name: TOKENS}, tmp_path)


@pytest.mark.parametrize("tokens", [[], [[1, 2]], [999], [-1]])
def test_bad_tokens_are_named(model, tokens):
    with pytest.raises(ValueError, match=r"empty|sequence|999|-1"):
        gj.trace(model, tokens)


def test_plain_text_has_no_roles():
    tokenizer = gj.Tokenizer.o200k_harmony()
    config = dataclasses.replace(TINY, vocab_size=201_088, num_tokens=201_088)
    trace = gj.trace(gj.GptOss(config, rngs=nnx.Rngs(0)), tokenizer.encode("Hello"), tokenizer=tokenizer, logits=False)
    assert trace.token_text == ("Hello",)
    assert trace.roles == trace.channels == ()
