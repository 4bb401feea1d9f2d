"""The shape of a model: `ModelConfig`, its presets, and the two spellings of ``config.json``.

Shape letters, used by every einsum, array suffix and docstring of the package:

======  ==================  ======  ============================  ======  =====================
B       batch               K       key/value head                E       expert
T       query position      G       query head per key/value head X       chosen expert
S       key position        H       head dimension                F       expert width
D       hidden size         V       vocabulary                    L       layer
======  ==================  ======  ============================  ======  =====================

Source of the facts: FACTS 1.1 and 1.2, restated where they are used.
"""

from gptoss_jax.config.model import GPT_OSS_20B, GPT_OSS_120B, MXFP4_GROUP, TINY, LayerType, ModelConfig
from gptoss_jax.config.spellings import FULL, SLIDING, ConfigError

__all__ = [
    "FULL",
    "GPT_OSS_20B",
    "GPT_OSS_120B",
    "MXFP4_GROUP",
    "SLIDING",
    "TINY",
    "ConfigError",
    "LayerType",
    "ModelConfig",
]
