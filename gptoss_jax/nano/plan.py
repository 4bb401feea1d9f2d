"""What fixes a training run: the model's shape, the mixture of data, the schedule. All of it is in the saved state."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp

from gptoss_jax.config import ModelConfig


class TrainError(ValueError):
    """A run that cannot start or go on: what is wrong and what to do. The last good state is untouched."""


_COMMON: dict[str, Any] = {
    "num_experts": 32,
    "vocab_size": 4160,  # 4,117 tokens, rounded up to a multiple of 64
    "num_tokens": 4117,
    "head_dim": 32,
    "num_key_value_heads": 2,
    "sliding_window": 64,
    "rope_factor": 4.0,
    "rope_original_context": 256,  # rows of training text; YaRN extends them to max_context
    "max_context": 1024,
    "eos_token_id": 4100,
    "pad_token_id": 4097,
}
PRESETS = {
    "nano": ModelConfig(num_layers=4, hidden_size=128, intermediate_size=64, num_attention_heads=4, **_COMMON),
    "mini": ModelConfig(num_layers=6, hidden_size=192, intermediate_size=96, num_attention_heads=6, **_COMMON),
    "tiny": ModelConfig(num_layers=2, hidden_size=32, intermediate_size=32, num_attention_heads=2, **_COMMON),
}


def _field(default: Any, about: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": about})


@dataclasses.dataclass(frozen=True)
class Plan:
    """Every number of a run. Steps are counted from the beginning of the run, not from that of its weights."""

    preset: str = _field("nano", "shape of the model: nano (4.5 M parameters), mini (12.9 M), tiny (for tests)")
    rows: int = _field(8, "rows of a batch")
    length: int = _field(256, "tokens of a row")
    text_share: float = _field(0.375, "share of the rows that hold running text; 0 trains on conversations alone")
    repeat_rows: int = _field(0, "rows of a batch that repeat a random passage: drills copying from the context")
    dialog_weight: float = _field(1.5, "loss weight of an assistant's token against a token of text")
    seed: int = _field(0, "of the initial weights and of the data")
    rate: float = _field(3e-3, "learning rate after the warm-up")
    warmup: int = _field(100, "steps over which the rate rises")
    steps: int = _field(1_000_000, "last step")
    fall: int = _field(0, "number of last steps over which the rate falls along a cosine")
    floor: float = _field(0.02, "share of the rate that is left at the last step")
    balance: float = _field(0.01, "weight of the load-balancing loss, the mean over layers")
    memory: float = _field(0.98, "how slowly the running load of the experts forgets, per step")
    weight_decay: float = _field(0.05, "decoupled weight decay of matrices")
    clip: float = _field(1.0, "largest norm of a gradient")
    quantize: bool = _field(False, "round the experts to MXFP4 in the forward pass (straight-through gradients)")
    tile: int = _field(64, "rows that share one expert's weights; speed alone")

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise TrainError(f"preset {self.preset!r} is none of {', '.join(PRESETS)}")
        for name in ("rows", "length", "warmup", "steps", "tile"):
            if getattr(self, name) < 1:
                raise TrainError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 <= self.text_share <= 1:
            raise TrainError(f"text_share must lie in 0 .. 1, not {self.text_share}")
        if not 0 <= self.repeat_rows <= self.rows - self.text_rows:
            room = self.rows - self.text_rows
            raise TrainError(f"repeat_rows must lie in 0 .. {room}, the rows without text, not {self.repeat_rows}")
        if not 0 <= self.fall <= self.steps:
            raise TrainError(f"fall must lie in 0 .. steps = {self.steps}, not {self.fall}")

    @property
    def config(self) -> ModelConfig:
        """The model's numbers."""
        return PRESETS[self.preset]

    @property
    def text_rows(self) -> int:
        """Rows of a batch that hold running text."""
        return round(self.rows * self.text_share)

    def learning_rate(self, step: Any) -> Any:
        """Warm-up, a level stretch that may be prolonged at any time, a fall: rate of step 0, 1, ..."""
        up = jnp.minimum(1.0, (step + 1) / self.warmup)
        done = jnp.clip((step - (self.steps - self.fall)) / max(self.fall, 1), 0, 1)
        return self.rate * up * (self.floor + (1 - self.floor) * 0.5 * (1 + jnp.cos(jnp.pi * done)))


def check_resumed(saved: dict[str, Any], plan: Plan, done: int, where: str) -> None:
    """Compare the plan of a saved run with the one that goes on.

    Only the end may move: `steps` and `fall`, while the rate has not begun to fall.

    Raises:
      TrainError: names every number that differs.
    """
    now = dataclasses.asdict(plan)
    names: Iterable[str] = sorted({*saved, *now})
    changed = [name for name in names if saved.get(name) != now.get(name)]
    level = min(saved.get("steps", 0) - saved.get("fall", 0), plan.steps - plan.fall)
    free = {"steps", "fall"} if done <= level else set()
    if refused := [name for name in changed if name not in free]:
        what = ", ".join(f"{name} {saved.get(name)!r} -> {now.get(name)!r}" for name in refused)
        raise TrainError(
            f"{where} belongs to a run with other numbers ({what}); repeat them to go on, or begin a new run from its "
            "weights with another --out and --from"
        )
