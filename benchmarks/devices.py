"""Print what a model costs on meshes of devices: bytes on each, bytes that each sends for a token. Allocates nothing.

python benchmarks/devices.py [20b | 120b] [--context N] [--batch B] [--mesh DATA,EXPERT,TENSOR ...]
"""

import argparse
import sys

from gptoss_jax import sharding
from gptoss_jax.config import GPT_OSS_20B, GPT_OSS_120B

MODELS = {"20b": GPT_OSS_20B, "120b": GPT_OSS_120B}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("model", nargs="?", choices=MODELS, default="120b")
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--mesh", action="append", help="as in 1,4,2; several may be given")
    given = parser.parse_args()
    meshes = sharding.MESHES_120B
    try:
        if given.mesh:
            sizes = [tuple(map(int, mesh.split(","))) for mesh in given.mesh]
            if any(len(mesh) != len(sharding.AXES) for mesh in sizes):
                raise ValueError(f"--mesh takes {len(sharding.AXES)} numbers, {', '.join(sharding.AXES)}: as in 1,4,2")
            meshes = {"": sizes}  # type: ignore[dict-item]
        print(sharding.table(MODELS[given.model], meshes, context=given.context, batch=given.batch))
    except ValueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
