"""The held-out sample in the package: about 100 kB of each of the ten kinds of text, never trained on.

For notebooks, tests and measurements. ``sample.json`` beside the texts names source, license and hash of each, and
what the order-4 Witten-Bell model of the training text makes of it.
"""

import argparse
import json
import lzma
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gptoss_jax.nano import corpus
from gptoss_jax.nano.corpus import DOMAINS, CorpusError

FOLDER = Path(__file__).parent / "data" / "sample"
ABOUT = "sample.json"


def read(folder: str | Path | None = None) -> dict[str, list[str]]:
    """Kind of text -> pieces of about 4 kB.

    Args:
      folder: of ``<name>.txt`` or ``<name>.txt.xz``; the sample in the package if None.

    Raises:
      CorpusError: no texts, or a damaged one.
    """
    folder = FOLDER if folder is None else Path(folder)
    paths = {path.name.removesuffix(".xz").removesuffix(".txt"): path for path in sorted(folder.glob("*.txt*"))}
    paths = {name: path for name, path in paths.items() if path.name in (f"{name}.txt", f"{name}.txt.xz")}
    if not paths:
        raise CorpusError(f"{folder}: no <name>.txt or <name>.txt.xz")
    found = {}
    for name, path in paths.items():
        try:
            data = path.read_bytes()
            decoded = (lzma.decompress(data) if path.suffix == ".xz" else data).decode("utf-8")
        except (lzma.LZMAError, EOFError, UnicodeDecodeError) as error:
            raise CorpusError(f"{path}: damaged ({error})") from None
        if not decoded.strip():
            raise CorpusError(f"{path}: empty")
        found[name] = corpus.blocks(decoded)
    return found


def about() -> dict[str, dict[str, Any]]:
    """What ``sample.json`` says of every kind of text."""
    return json.loads((FOLDER / ABOUT).read_text(encoding="utf-8"))


def baselines() -> dict[str, float]:
    """Bits per byte of the sample under the order-4 Witten-Bell model of the training text."""
    return {name: row["witten_bell"] for name, row in about().items()}


def build(source: Path, out: Path, size: int = 120_000) -> None:
    """Cut the held-out blocks out of a corpus, measure the baseline, write the sample.

    Args:
      source: folder of the corpus.
      out: folder to write.
      size: bytes of every kind of text, about.
    """
    out.mkdir(parents=True, exist_ok=True)
    rows = {}
    for domain in DOMAINS:
        text = corpus.read(source, [domain.name])[domain.name]
        runs, held = corpus.split(text)
        kept: list[str] = []
        for piece in held:
            if sum(len(part.encode()) for part in kept) < size:
                kept.append(piece)
        sample = "".join(kept)
        model = corpus.WittenBell("".join(runs).encode())
        bits = sum(model.bits(piece.encode()) for piece in kept) / len(sample.encode())
        (out / f"{domain.name}.txt.xz").write_bytes(lzma.compress(sample.encode(), preset=9))
        rows[domain.name] = {
            "what": domain.what,
            "package": domain.package,
            "license": domain.license,
            "bytes": len(sample.encode()),
            "sha256": corpus.digest(sample),
            "witten_bell": round(bits, 4),
        }
        print(domain.name, rows[domain.name]["bytes"], rows[domain.name]["witten_bell"], flush=True)
    partial = out / f"{ABOUT}.partial"
    partial.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, out / ABOUT)


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the sample from a corpus."""
    parser = argparse.ArgumentParser("python -m gptoss_jax.nano.samples", description=main.__doc__)
    parser.add_argument("corpus", type=Path, help="folder of <domain>.txt.xz")
    parser.add_argument("--out", type=Path, default=FOLDER, help="default: inside the package")
    given = parser.parse_args(arguments)
    try:
        build(given.corpus, given.out)
    except (CorpusError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
