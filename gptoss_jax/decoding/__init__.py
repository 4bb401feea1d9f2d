"""Generation: prefill in chunks, then a compiled loop that decodes many tokens per dispatch."""

from gptoss_jax.decoding.decoder import DECODE_CHUNK, PREFILL_CHUNK, Decoder, Step, check_request
from gptoss_jax.decoding.generating import generate, generate_batch

__all__ = ["DECODE_CHUNK", "PREFILL_CHUNK", "Decoder", "Step", "check_request", "generate", "generate_batch"]
