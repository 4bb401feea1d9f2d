"""A progress bar on standard error for work that is measured in bytes."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

Advance = Callable[[int], None]
_PATIENCE = 0.7  # seconds of silence; what is quicker needs no bar


@contextlib.contextmanager
def byte_progress(what: str, total: int, show: bool | None = None) -> Iterator[Advance]:
    """Yields ``advance(nbytes)``.

    Args:
      what: label of the bar.
      total: bytes of the whole task.
      show: True draws at once, False never, None only on a terminal and if it takes longer than a moment.
    """
    if show is False or (show is None and not sys.stderr.isatty()):
        yield lambda nbytes: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn(what), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    bar = Progress(*columns, console=console, transient=console.is_terminal)
    task = bar.add_task(what, total=total)
    started, drawn = time.monotonic(), False

    def advance(nbytes: int) -> None:
        nonlocal drawn
        bar.advance(task, nbytes)
        if not drawn and (show or time.monotonic() - started > _PATIENCE):
            bar.start()
            drawn = True

    try:
        yield advance
    finally:
        if drawn:
            bar.stop()
