"""``train`` and ``eval``: handed to the modules that know their options."""

import importlib
from collections.abc import Sequence

_HOME = {"train": "gptoss_jax.nano.train", "eval": "gptoss_jax.nano.evaluate"}


def pass_on(command: str, arguments: Sequence[str]) -> int:
    """Run the command's own ``main``."""
    return importlib.import_module(_HOME[command]).main(list(arguments)) or 0
