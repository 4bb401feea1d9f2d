"""``inspect``, ``verify`` and ``convert``."""

import argparse
from pathlib import Path


def add_inspect(parser: argparse.ArgumentParser) -> None:
    """Options of ``inspect``."""
    parser.epilog = "example:\n  gptoss-jax inspect ~/gpt-oss-20b"
    parser.add_argument("folder", type=Path, nargs="?", help="default: the built-in model")
    parser.set_defaults(run=_inspect)


def _inspect(options: argparse.Namespace) -> int:
    from gptoss_jax.checkpoint import inspect
    from gptoss_jax.checkpoint.reading import BUILT_IN

    inspection = inspect(options.folder or BUILT_IN)
    print(inspection)
    return 1 if inspection.problems else 0


def add_verify(parser: argparse.ArgumentParser) -> None:
    """Options of ``verify``."""
    parser.epilog = """examples:
  gptoss-jax verify ~/gpt-oss-20b
  gptoss-jax verify ~/gpt-oss-20b --write-manifest
  gptoss-jax verify ~/my-checkpoint --tokens tokens.npy --logits logits.npy"""
    parser.add_argument("folder", type=Path)
    parser.add_argument("--manifest", type=Path, metavar="FILE", help="sha256 sums, as sha256sum writes them")
    parser.add_argument(
        "--write-manifest", action="store_true", help="if all is well, write SHA256SUMS into the folder"
    )
    parser.add_argument("--tokens", type=Path, metavar="FILE.npy", help="int [T], with --logits")
    parser.add_argument("--logits", type=Path, metavar="FILE.npy", help="float [T, V] of a reference implementation")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="between logits; default: %(default)s")
    parser.set_defaults(run=_verify)


def _verify(options: argparse.Namespace) -> int:
    import numpy as np

    from gptoss_jax.checkpoint import verify

    read = lambda path: None if path is None else np.load(path, allow_pickle=False)
    report = verify(
        options.folder,
        manifest=options.manifest,
        write_manifest=options.write_manifest,
        tokens=read(options.tokens),
        logits=read(options.logits),
        tolerance=options.tolerance,
    )
    print(report)
    return 0 if report.ok else 1


def add_convert(parser: argparse.ArgumentParser) -> None:
    """Options of ``convert``."""
    parser.epilog = """examples:
  gptoss-jax convert ~/gpt-oss-20b ~/gpt-oss-20b-original --layout original
  gptoss-jax convert ~/gpt-oss-20b-bf16 ~/gpt-oss-20b-packed
  gptoss-jax convert --synthesize gpt-oss-20b /tmp/random-20b      (13.8 GB of random weights)"""
    parser.add_argument(
        "folders", type=Path, nargs="+", metavar="FOLDER", help="source and target; only a target with --synthesize"
    )
    parser.add_argument("--layout", choices=["huggingface", "original"], default="huggingface", help="of the target")
    parser.add_argument(
        "--synthesize", metavar="PRESET", help="write random weights: gpt-oss-20b, gpt-oss-120b or tiny"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random weights")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing target")
    parser.set_defaults(run=_convert)


def _convert(options: argparse.Namespace) -> int:
    from gptoss_jax.checkpoint import convert, synthesize

    if len(options.folders) != (1 if options.synthesize else 2):
        raise ValueError(f"give {'a target' if options.synthesize else 'a source and a target'}, see convert --help")
    if options.synthesize:
        target = synthesize(
            options.synthesize, options.folders[0], options.seed, layout=options.layout, overwrite=options.overwrite
        )
    else:
        target = convert(*options.folders, layout=options.layout, overwrite=options.overwrite)
    print(f"wrote {target}")
    return 0
