"""The built-in model, loaded by transformers as an ordinary gpt-oss folder: the same logits and the same routing.

Needs the heavy oracles, which are not part of the default environment: pip install -e '.[oracles]'.
"""

import numpy as np
import pytest

from gptoss_jax.checkpoint.reading import BUILT_IN
from tests.parity import suite

TEXT = (
    "It is a truth universally acknowledged. def f(x):\n    return 2 * x\n床前明月光。"
    "En el principio crió Dios los cielos. What is 27+85? Sort: 7 1 9\n"
) * 6


@pytest.mark.oracle
def test_transformers_computes_the_same():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    import gptoss_jax as gj

    model, tokenizer = gj.load()
    tokens = tokenizer.encode_ordinary(TEXT)[:300]
    assert len(tokens) > 2 * model.config.sliding_window
    trace = gj.trace(model, tokens)
    theirs = transformers.GptOssForCausalLM.from_pretrained(
        BUILT_IN,
        dtype=torch.float32,
        attn_implementation="eager",
        quantization_config=transformers.Mxfp4Config(dequantize=True),
    )
    # dequantized to bfloat16, which holds every MXFP4 value exactly, then widened
    theirs = theirs.float().eval()
    seen: list[np.ndarray] = []
    for layer in theirs.model.layers:
        router = layer.mlp.router
        router.register_forward_pre_hook(
            lambda module, inputs: seen.append(
                torch.nn.functional.linear(inputs[0].reshape(-1, module.weight.shape[1]), module.weight, module.bias)
                .detach()
                .numpy()
            )
        )
    with torch.no_grad():
        logits = theirs(torch.tensor([tokens])).logits[0].numpy()
    router_logits = np.stack(seen, axis=1)
    assert np.abs(trace.logits - logits).max() <= suite.BOUND * max(1, np.abs(logits).max() / 14)
    expected, margin = suite.chosen(router_logits)
    equal = (np.sort(trace.experts, -1) == expected).all(-1)
    assert equal[margin > suite.MARGIN].all()
