"""Our Harmony encoding over both engines of the tokenizer, and the official one."""

from typing import Any

import pytest
from harmony_cases import official_encoding

from gptoss_jax.harmony import Encoding
from gptoss_jax.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def official(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The official encoding, loaded once."""
    return official_encoding(tmp_path_factory.mktemp("ranks"))


@pytest.fixture(scope="session", params=["tiktoken", "scratch"])
def encoding(request: pytest.FixtureRequest) -> Encoding:
    """Ours, over either engine."""
    return Encoding(Tokenizer.o200k_harmony(request.param))
