"""Text to token ids and back: byte-pair encoding from scratch, special tokens, `o200k_harmony`."""

from gptoss_jax.tokenizer.core import StreamingDecoder, Tokenizer
from gptoss_jax.tokenizer.training import Merge, train
from gptoss_jax.tokenizer.vocabulary import VocabularyError

__all__ = ["Merge", "StreamingDecoder", "Tokenizer", "VocabularyError", "train"]
