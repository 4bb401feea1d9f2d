"""What one student needs on a shared server: ``python benchmarks/classroom.py [--students 4] [--lessons 00 12]``.

Runs the same lesson in several kernels at once, as a class would after "now run all cells", and measures for each
kernel memory (PSS: pages shared between students count in part; and RSS), processor time and the time until its last
cell is done. Prints a Markdown table; needs the `test` extra.
"""

import argparse
import concurrent.futures
import os
import statistics
import threading
import time

import nbformat
import psutil

from gptoss_jax.course import build


class Kernels(threading.Thread):
    """Largest memory and last processor time of every kernel of this process, sampled four times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.pss: dict[int, int] = {}
        self.rss: dict[int, int] = {}
        self.cpu: dict[int, float] = {}
        self.together = 0
        self.running = True

    def run(self) -> None:
        while self.running:
            total = 0
            for child in psutil.Process().children(recursive=True):
                try:
                    if "ipykernel" not in " ".join(child.cmdline()):
                        continue
                    memory, pid = child.memory_full_info(), child.pid
                    pss = getattr(memory, "pss", memory.rss)
                    self.pss[pid] = max(self.pss.get(pid, 0), pss)
                    self.rss[pid] = max(self.rss.get(pid, 0), memory.rss)
                    self.cpu[pid] = sum(child.cpu_times()[:2])
                    total += pss
                except psutil.Error:
                    continue
            self.together = max(self.together, total)
            time.sleep(0.25)


def measure(number: str, students: int) -> str:
    """One row: the lesson, run by so many kernels at once."""
    (path,) = build.sources([number])
    book = nbformat.read(build.target(path, "reading"), as_version=4)
    kernels = Kernels()
    kernels.start()

    def one(_: int) -> float:
        begun = time.monotonic()
        build.execute(book, timeout=600)
        return time.monotonic() - begun

    with concurrent.futures.ThreadPoolExecutor(students) as pool:
        walls = list(pool.map(one, range(students)))
    kernels.running = False
    kernels.join()
    mega = [statistics.mean(values.values()) / 1e6 for values in (kernels.pss, kernels.rss)]
    cpu = statistics.mean(kernels.cpu.values())
    return (
        f"| {path.stem} | {students} | {mega[0]:.0f} | {mega[1]:.0f} | {kernels.together / 1e6:.0f} "
        f"| {cpu:.1f} | {max(walls):.1f} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--students", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--lessons", nargs="+", default=["00"])
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB\n")
    columns = (
        "lesson",
        "students at once",
        "MB each (PSS)",
        "MB each (RSS)",
        "MB together",
        "CPU s each",
        "s to the last",
    )
    print(f"| {' | '.join(columns)} |\n{'| --- ' * len(columns)}|")
    for number in options.lessons:
        for students in options.students:
            print(measure(number, students), flush=True)


if __name__ == "__main__":
    main()
