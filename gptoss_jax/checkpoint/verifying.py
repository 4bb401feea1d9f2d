"""`verify`: is this folder, byte for byte and number for number, the checkpoint that it claims to be?

Headers are held against the configuration, contents against sha256 manifests (the folder's own ``SHA256SUMS``, a given
one, and that of the published weights), values against what a sound file can hold, and, if asked, logits against
known ones. Problems are collected, so that one run names them all.
"""

import dataclasses
import functools
import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gptoss_jax.checkpoint.files import CheckpointError, Tensor, read_folder, read_header
from gptoss_jax.checkpoint.folder import find_layout
from gptoss_jax.checkpoint.names import FLOAT, differences, is_packed, table
from gptoss_jax.checkpoint.progress import Advance, byte_progress
from gptoss_jax.config import ConfigError, ModelConfig

MANIFEST = "SHA256SUMS"
_PUBLISHED = Path(__file__).parents[1] / "data"
_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)")
_PIECE = 1 << 24
_SCALE_NAN = 255  # of E8M0, as in mxfp4.py; restated so that files can be checked without starting JAX


@dataclasses.dataclass
class Verification:
    """What `verify` found; `str` gives the text that the command line prints.

    Attributes:
      path: the folder.
      problems: what is wrong, one sentence each; empty if nothing is.
      notes: what was checked and found right, and what could not be.
      sha256: {file name: digest} of the files read.
      published: the published checkpoint whose digests all weight files have, or "".
      logit_error: largest difference from the known logits, or None.
    """

    path: Path
    problems: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    sha256: dict[str, str] = dataclasses.field(default_factory=dict)
    published: str = ""
    logit_error: float | None = None

    @property
    def ok(self) -> bool:
        """True if no problem was found."""
        return not self.problems

    def __str__(self) -> str:
        count = len(self.problems)
        verdict = f"{self.path}: " + ("sound" if self.ok else f"{count} problem{'s' if count > 1 else ''}")
        rows = [f"  wrong: {text}" for text in self.problems] + [f"  checked: {text}" for text in self.notes]
        return "\n".join([verdict, *rows])


def read_manifest(path: Path) -> dict[str, str]:
    """``{file name: sha256}`` of a file as ``sha256sum`` writes it; lines that begin with # are comments."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from None
    sums = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.rstrip())
        if not match:
            raise CheckpointError(f"{path}: line {number} is not '<sha256>  <file>': {line[:80]!r}")
        sums[match[2].removeprefix("./")] = match[1].lower()
    return sums


def _unsound(tensor: Tensor, piece: np.ndarray) -> str:
    """What no trained checkpoint holds."""
    if tensor.dtype == FLOAT:
        bad = int(np.count_nonzero((piece.view(np.uint16) & 0x7F80) == 0x7F80))
        return f"{bad} values are NaN or infinite" if bad else ""
    if is_packed(tensor.name) or tensor.name.endswith(".scales"):
        bad = int(np.count_nonzero(piece == _SCALE_NAN)) if tensor.name.endswith("scales") else 0
        return f"{bad} scales are 255, which is NaN" if bad else ""
    return ""


def _read_weights(path: Path, tensors: list[Tensor], advance: Advance) -> tuple[str, list[str]]:
    """sha256 of one weight file and the tensors in it whose values are unsound; every byte is read once."""
    digest, problems = hashlib.sha256(), []
    tensors = sorted(tensors, key=lambda tensor: tensor.start)
    with path.open("rb") as file:
        digest.update(file.read(tensors[0].start))
        for tensor in tensors:
            faults, zero = [], tensor.nbytes > 0
            for begin in range(0, tensor.nbytes, _PIECE):
                data = file.read(min(_PIECE, tensor.nbytes - begin))
                digest.update(data)
                advance(len(data))
                piece = np.frombuffer(data, np.uint8)
                zero = zero and not piece.any()
                if fault := _unsound(tensor, piece):
                    faults.append(fault)
            if zero and len(tensor.shape) > 1 and "bias" not in tensor.name:
                faults.append("every byte is zero, as in a download that broke off")
            problems += [f"{path.name}: tensor {tensor.name!r}: {fault}" for fault in faults[:1]]
    return digest.hexdigest(), problems


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _companions(path: Path) -> list[Path]:
    """The folder's other files, the manifest and hidden ones left out."""
    return sorted(
        file
        for file in path.iterdir()
        if file.is_file() and not file.name.startswith(".") and file.name != MANIFEST and file.suffix != ".safetensors"
    )


def _compare(report: Verification, name: str, sums: dict[str, str]) -> None:
    before = len(report.problems)
    for file, expected in sums.items():
        found = report.sha256.get(file)
        if found is None:
            report.problems.append(f"{file}: listed in {name} but not in the folder")
        elif found != expected:
            report.problems.append(f"{file}: sha256 is {found}, {name} says {expected}; download it again")
    if len(report.problems) == before:
        report.notes.append(f"{len(sums)} files have the sha256 that {name} gives them")


def _compare_published(report: Verification) -> None:
    for path in sorted(_PUBLISHED.glob("*.sha256")):
        sums = read_manifest(path)
        if set(sums) != {name for name in report.sha256 if name.endswith(".safetensors")}:
            continue
        if (report.path / "synthetic.json").exists():
            report.notes.append(f"random weights in the shape of {path.stem}, as synthetic.json says")
        elif all(report.sha256[name] == expected for name, expected in sums.items()):
            report.published = path.stem
            report.notes.append(f"every weight file has the published sha256: this is {path.stem}")
        else:
            different = ", ".join(name for name, expected in sums.items() if report.sha256[name] != expected)
            report.problems.append(
                f"not the published {path.stem}: sha256 differs in {different}; download again, unless it is a variant"
            )


def _known_logits(report: Verification, tokens: Any, logits: Any, tolerance: float) -> None:
    from gptoss_jax.checkpoint.reading import load  # JAX is needed for this check alone

    model, _ = load(report.path, "float32")
    expected = np.asarray(logits, np.float32)
    found = np.asarray(model(tokens))
    if found.shape != expected.shape:
        report.problems.append(f"known logits have shape {list(expected.shape)}, the model's {list(found.shape)}")
        return
    report.logit_error = float(np.abs(found - expected).max())
    text = f"logits differ from the known ones by at most {report.logit_error:.2g} (bound {tolerance:.2g})"
    (report.notes if report.logit_error <= tolerance else report.problems).append(text)


def _headers(report: Verification) -> dict[str, Tensor]:
    """Names, shapes, dtypes and sizes of everything, against the configuration."""
    path = report.path
    try:
        tensors = read_folder(path)
        layout = find_layout(path, tensors)
    except CheckpointError as error:
        report.problems.append(str(error))
        for file in sorted(path.glob("*.safetensors")):
            _collect(report, functools.partial(read_header, file))
        return {}
    config = _collect(report, functools.partial(ModelConfig.from_file, path / "config.json"))
    if config is not None:
        parts = table(config, layout)
        different = differences(parts, tensors)
        report.problems += different
        if not different:
            size = sum(tensor.nbytes for tensor in tensors.values())
            names = "names, shapes, dtypes and sizes"
            report.notes.append(f"{len(parts)} tensors, {size:,} bytes, {layout} layout: {names} as config.json asks")
    return tensors


def _collect(report: Verification, check: Callable[[], Any]) -> Any:
    try:
        return check()
    except (CheckpointError, ConfigError) as error:
        if str(error) not in report.problems:
            report.problems.append(str(error))
        return None


def verify(
    path: str | Path,
    *,
    manifest: str | Path | None = None,
    write_manifest: bool = False,
    tokens: Any = None,
    logits: Any = None,
    tolerance: float = 1e-4,
    progress: bool | None = None,
) -> Verification:
    """Check a folder tensor by tensor and file by file; every byte is read once.

    Args:
      path: a folder in either layout.
      manifest: file of sha256 sums, as ``sha256sum`` writes it; the folder's own ``SHA256SUMS`` is used in any case.
      write_manifest: if nothing is wrong, write ``SHA256SUMS`` into the folder, for the next time.
      tokens, logits: int [T] and float [T, V], what a reference implementation answers in float32.
      tolerance: largest difference allowed between logits.
      progress: as in `load`.

    Returns:
      `Verification`; its ``ok`` is the verdict. Problems are listed, not raised.

    Raises:
      CheckpointError: no such folder, an unreadable manifest, or tokens without logits.
    """
    path = Path(path).expanduser()
    if not path.is_dir():
        raise CheckpointError(f"{path}: {'is a file; give its folder' if path.exists() else 'no such folder'}")
    if (tokens is None) != (logits is None):
        raise CheckpointError("known logits need both tokens and logits")
    given = {Path(manifest).name: read_manifest(Path(manifest))} if manifest is not None else {}
    if (path / MANIFEST).is_file() and not write_manifest:
        given.setdefault(MANIFEST, read_manifest(path / MANIFEST))
    report = Verification(path)
    tensors = _headers(report)
    files: dict[Path, list[Tensor]] = {file: [] for file in sorted(path.glob("*.safetensors"))}
    for tensor in tensors.values():
        files.setdefault(tensor.file, []).append(tensor)
    with byte_progress(f"Verifying {path.name}", sum(t.nbytes for t in tensors.values()), progress) as advance:
        for file, inside in files.items():
            if inside:
                report.sha256[file.name], problems = _read_weights(file, inside, advance)
                report.problems += problems
            else:
                report.sha256[file.name] = _digest(file)
    report.sha256 |= {file.name: _digest(file) for file in _companions(path)}
    for name, sums in given.items():
        _compare(report, name, sums)
    _compare_published(report)
    if not given and not report.published:
        report.notes.append(f"no value is impossible, but there is no {MANIFEST} to say that each is the right one")
    if tokens is not None and report.ok:
        _known_logits(report, tokens, logits, tolerance)
    if write_manifest and report.ok:
        text = "".join(f"{digest}  {name}\n" for name, digest in sorted(report.sha256.items()))
        partial = path / f".{MANIFEST}.partial"
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path / MANIFEST)
        report.notes.append(f"wrote {MANIFEST} for {len(report.sha256)} files")
    return report
