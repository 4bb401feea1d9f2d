"""``python -m gptoss_jax`` is ``gptoss-jax``, for machines where the script is not on the path."""

import sys

from gptoss_jax.cli import main

sys.exit(main())
