"""Tokenizer: known ids, special tokens, decoding, streaming, and what it refuses."""

import subprocess
import sys

import numpy as np
import pytest

from gptoss_jax.tokenizer import Tokenizer

ENGINES = ["tiktoken", "scratch"]

VECTORS = {
    "hello world": [24912, 2375],
    "<|start|>": [27, 91, 5236, 91, 29],
    "assistant": [173781],
    "user": [1428],
    "system": [17360],
    "developer": [77944],
    "analysis": [35644],
    "commentary": [12606, 815],
    "final": [17196],
    "functions": [44580],
    "json": [4108],
    " json": [5701],
    " code": [3490],
    " to=": [316, 28],
    "browser": [46071],
    "python": [29010],
    " ": [220],
    "Hello World's it's IT'S don't": [13225, 134475, 4275, 8734, 31233, 4128],
    "  two  spaces\n\n\nnew\r\n  x": [220, 1920, 220, 18608, 2499, 1389, 370, 220, 1215],
    "1234567890 12": [7633, 19354, 29338, 15, 220, 899],
    "HTTPServer camelCase XMLHttp": [17893, 6444, 83330, 6187, 100497],
    "https://a.b/c//d\n/": [4172, 1684, 64, 1292, 4308, 393, 67, 198, 14],
    "日本語テキスト 안녕하세요": [9048, 40909, 16056, 18368, 38236, 24497, 171731],
    "\tdef f(x):\n\t\treturn x  \n": [23154, 285, 4061, 1883, 197, 1393, 1215, 4066],
    "I'LL you'Re": [40, 6, 7454, 481, 146756],
    "...!?//\n\n--": [1008, 78922, 55245, 375],
    "a\x1cb": [64, 216, 65],
    '"💖': [1, 31446, 244],
}


@pytest.fixture(scope="module", params=ENGINES)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return Tokenizer.o200k_harmony(request.param)


@pytest.mark.parametrize("text", VECTORS)
def test_known_ids(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.encode(text, disallowed_special=()) == VECTORS[text]
    assert tokenizer.encode_ordinary(text) == VECTORS[text]
    assert tokenizer.decode(VECTORS[text]) == text


def test_sizes_and_special_table(tokenizer: Tokenizer) -> None:
    special = tokenizer.special_tokens
    assert tokenizer.n_vocab == 201088
    assert len(tokenizer.ranks) == 199998
    assert len(special) == 1091, "1,090 ids, one of which has two names"
    names = ["return", "constrain", "channel", "start", "end", "message", "call", "startoftext", "endoftext"]
    ids = [200002, 200003, 200005, 200006, 200007, 200008, 200012, 199998, 199999]
    assert [special[f"<|{name}|>"] for name in names] == ids
    assert sorted(set(special.values())) == list(range(199998, 201088))
    assert tokenizer.decode([200014]) == "<|reserved_200014|>"


def test_id_200018_has_two_names(tokenizer: Tokenizer) -> None:
    for name in ("<|endofprompt|>", "<|reserved_200018|>"):
        assert tokenizer.encode(name, allowed_special="all") == [200018]
    assert tokenizer.decode([200018]) == "<|reserved_200018|>"


def test_ids_without_an_embedding_row_are_refused(tokenizer: Tokenizer) -> None:
    for token in (201088, 99999999, -1):
        with pytest.raises(ValueError, match=rf"Invalid token for decoding: {token} at position 1 .*0 \.\. 201087"):
            tokenizer.decode([1, token])
        with pytest.raises(ValueError, match=f"Invalid token for decoding: {token}"):
            tokenizer.token_bytes(token)
        assert token not in tokenizer
    with pytest.raises(ValueError, match="'x' at position 0 is no integer"):
        tokenizer.decode(["x"])  # type: ignore[list-item]


def test_special_text_is_refused_with_its_position(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match=r"special token '<\|end\|>' at character 6;.*disallowed_special=\(\)"):
        tokenizer.encode("hello <|end|> <|start|>")


def test_allowed_and_disallowed_special(tokenizer: Tokenizer) -> None:
    text = "a<|start|>b<|end|>"
    plain = [27, 91, 419, 91, 29]
    assert tokenizer.encode(text, allowed_special="all") == [64, 200006, 65, 200007]
    assert tokenizer.encode(text, allowed_special={"<|start|>"}, disallowed_special=()) == [64, 200006, 65, *plain]
    with pytest.raises(ValueError, match=r"'<\|end\|>' at character 11"):
        tokenizer.encode(text, allowed_special={"<|start|>"})
    with pytest.raises(ValueError, match="'b' at character 10"):
        tokenizer.encode(text, allowed_special="all", disallowed_special={"b"})
    assert tokenizer.encode("<|nosuch|>", allowed_special={"<|nosuch|>"}) == tokenizer.encode_ordinary("<|nosuch|>")
    assert tokenizer.encode("<|start|>" * 3, allowed_special="all") == [200006] * 3


def test_a_name_instead_of_a_set_of_names_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(TypeError, match=r"allowed_special = .*give 'all' or a collection"):
        tokenizer.encode("x", allowed_special="<|start|>")


def test_lone_surrogates_are_refused_and_pairs_are_joined(tokenizer: Tokenizer) -> None:
    for text, where, code in [("ab\ud800c", 2, "D800"), ("\udfff", 0, "DFFF"), ("x\udc4d\ud83d", 1, "DC4D")]:
        with pytest.raises(ValueError, match=rf"lone surrogate, first seen near character {where}: U\+{code}"):
            tokenizer.encode(text)
    assert tokenizer.encode("\ud83d\udc4d") == tokenizer.encode("👍")


def test_text_must_be_text(tokenizer: Tokenizer) -> None:
    with pytest.raises(TypeError, match="text must be a str, not bytes"):
        tokenizer.encode(b"bytes")  # type: ignore[arg-type]


def test_decoding_invalid_utf8(tokenizer: Tokenizer) -> None:
    assert tokenizer.token_bytes(9552) == b" \xf0\x9f"
    assert tokenizer.decode([9552]) == " \ufffd"
    assert tokenizer.token_text(9552) == r" \xf0\x9f"
    with pytest.raises(UnicodeDecodeError):
        tokenizer.decode([9552], errors="strict")
    assert tokenizer.decode(np.array([24912, 2375], np.int32)) == "hello world"


def test_streaming_never_emits_half_a_character(tokenizer: Tokenizer) -> None:
    text = "Grüße 👩‍🚀 日本語 नमस्ते e\u0301 💖!"
    stream = tokenizer.stream()
    pieces = [stream.push(token) for token in tokenizer.encode(text)]
    assert "".join(pieces) + stream.flush() == text
    assert "\ufffd" not in "".join(pieces)
    assert "" in pieces, "some token ends within a character"
    stream.push(31446)
    assert stream.flush() == "\ufffd"
    assert stream.push(24912) == "hello", "a flushed stream starts afresh"


def test_streaming_equals_decoding_on_any_ids(tokenizer: Tokenizer) -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        ids = rng.integers(0, 201088, 20)
        stream = tokenizer.stream()
        assert "".join(map(stream.push, ids.tolist())) + stream.flush() == tokenizer.decode(ids)


def test_import_and_load_are_lazy() -> None:
    code = (
        "import sys; import gptoss_jax as gj; t = gj.Tokenizer.o200k_harmony('scratch'); t.encode('a b');"
        "from gptoss_jax import harmony; harmony.Encoding(t);"
        "print([m for m in ('jax', 'tiktoken', 'flax', 'rich') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_unknown_engine_is_refused() -> None:
    with pytest.raises(ValueError, match="engine = 'fast': choose 'tiktoken' or 'scratch'"):
        Tokenizer.o200k_harmony("fast")  # type: ignore[arg-type]
