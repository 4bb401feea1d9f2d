"""The forward pass against two reference implementations, cached and uncached."""

import numpy as np
import pytest

from tests.parity import suite

CHECKPOINTS = ("small", "wide")


@pytest.mark.parametrize("layout", ["huggingface", "original"])
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_logits_and_routing_equal_the_references(name, layout):
    suite.check_whole(name, layout)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_call_gives_the_same_logits(name):
    want = suite.golden(name)
    logits = np.asarray(suite.load(name)(want.tokens))
    assert logits.dtype == np.float32
    assert np.abs(logits - want.logits[0]).max() <= suite.BOUND


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 8, 15, 16, 17, 31, 33, 64, 95, 96])
def test_chunked_prefill_equals_whole_prefill(chunk):
    # the window is 16 and T is 96: chunk 1 is decoding, token by token, past six wraps of the ring
    suite.check_chunked("small", chunk)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1, 97, 8))
def test_chunked_prefill_for_every_chunk_size(first):
    for chunk in range(first, first + 8):
        suite.check_chunked("small", chunk)


@pytest.mark.parametrize("chunk", [1, 100])
def test_wide_checkpoint_through_the_cache(chunk):
    suite.check_chunked("wide", chunk)  # window 128, T 300: two wraps


@pytest.mark.parametrize("chunk", [1, 7, 16, 48])
def test_rows_of_different_lengths_equal_single_runs(chunk):
    model, tokens, window = suite.load("small"), suite.golden("small").tokens, 16
    rows = [tokens[:1], tokens[5 : 5 + window - 1], tokens[20 : 20 + window], tokens[40 : 40 + 3 * window]]
    for row, (logits, router_logits, experts) in zip(rows, suite.chunked(model, rows, chunk), strict=True):
        alone = suite.whole(model, row)
        assert np.abs(logits - alone[0]).max() <= suite.BOUND
        clear = suite.chosen(alone[1])[1] > suite.MARGIN
        assert (experts == alone[2])[clear].all()
        assert np.abs(router_logits - alone[1]).max() <= suite.BOUND


def test_batched_call_equals_single_calls():
    model, tokens = suite.load("small"), suite.golden("small").tokens
    batch = np.stack([tokens[:40], tokens[40:80]])
    both = np.asarray(model(batch))
    assert both.shape == (2, 40, model.config.vocab_size)
    for row, logits in zip(batch, both, strict=True):
        np.testing.assert_allclose(logits, model(row), atol=suite.BOUND)


def test_bfloat16_stays_near_the_bfloat16_reference():
    """Routing flips make single logits differ; the mean and the winners must not."""
    import gptoss_jax as gj

    folder = suite.GOLDEN / "small"
    reference = np.load(folder / "logits_bf16_openai.npy")
    ours = np.asarray(gj.load(folder, dtype="bfloat16")[0](suite.golden("small").tokens))
    exact = suite.golden("small").logits[0]
    assert np.abs(ours - exact).mean() <= 1.5 * np.abs(reference - exact).mean()
