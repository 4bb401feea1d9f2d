"""What a part of the model does to its answer: ablation sweeps, contributions, the logit lens, attention, new weights.

Load says which experts are busy; what is here says which ones matter. Every function takes the model and one sequence
[T], runs a compiled program whose length is padded, and returns NumPy arrays.
"""

from gptoss_jax.causes.ablating import Effects, ablation_sweep
from gptoss_jax.causes.attending import attention_distance, attention_entropy, attention_weights, sink_mass
from gptoss_jax.causes.attributing import Contributions, Lens, contributions, logit_lens
from gptoss_jax.causes.replacing import with_weights

__all__ = [
    "Contributions",
    "Effects",
    "Lens",
    "ablation_sweep",
    "attention_distance",
    "attention_entropy",
    "attention_weights",
    "contributions",
    "logit_lens",
    "sink_mass",
    "with_weights",
]
