"""The shipped checkpoint is a normal gpt-oss folder: transformers loads it and agrees. Needs torch."""

import numpy as np
import pytest

import gptoss_jax as gj
from gptoss_jax.nano import samples
from gptoss_jax.nano.train import BUILT_IN

pytestmark = [pytest.mark.oracle, pytest.mark.slow]


@pytest.fixture(scope="module")
def theirs():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.set_num_threads(2)
    options = {"dtype": torch.float32, "attn_implementation": "eager"}
    options["quantization_config"] = transformers.Mxfp4Config(dequantize=True)
    return transformers.GptOssForCausalLM.from_pretrained(BUILT_IN, **options).eval()


def test_logits_and_greedy_text_agree(theirs):
    import torch

    model, tokenizer = gj.load()
    assert theirs.dtype == torch.float32
    for name in ("python-code", "spanish-scripture"):
        ids = np.array(tokenizer.encode_ordinary(samples.read()[name][0])[:150])
        with torch.no_grad():
            expected = theirs(torch.tensor(ids[None])).logits[0].numpy()
        found = np.asarray(model(ids))
        assert np.abs(found - expected).max() < 1e-3
        assert (found.argmax(-1) == expected.argmax(-1)).mean() == 1.0
    prompt = tokenizer.encode("<|start|>user<|message|>Sort: 3 1 2<|end|><|start|>assistant", allowed_special="all")
    with torch.no_grad():
        written = theirs.generate(torch.tensor([prompt]), max_new_tokens=32, do_sample=False)[0, len(prompt) :].tolist()
    assert written == list(gj.generate(model, prompt, len(written)))


def test_their_tokenizer_reads_ours():
    transformers = pytest.importorskip("transformers")
    _, tokenizer = gj.load()
    other = transformers.PreTrainedTokenizerFast(tokenizer_file=str(BUILT_IN / "tokenizer.json"))
    for pieces in samples.read().values():
        assert other.encode(pieces[0]) == tokenizer.encode_ordinary(pieces[0])
