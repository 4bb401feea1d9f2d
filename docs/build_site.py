"""Build the site: ``python docs/build_site.py [OUT]`` (the `docs` extra; no network). Default OUT: build/site.

Copies the pages and the executed lessons into a folder that mirrors the repository, gives every figure its alt text in
the form the builder reads, and runs Sphinx there with warnings as errors.
"""

import html
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def page(notebook: dict) -> dict:
    """The notebook as the site shows it: alt text on figures, no link to files that the site does not have."""
    opening = notebook["cells"][0]
    opening["source"] = re.sub(r": \[[^]]+\]\(exercises/[^)]+\)", "", "".join(opening["source"]))
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        for output in cell.get("outputs", []):
            picture = output.get("data", {}).pop("image/png", None)
            if picture:
                alt = output["metadata"]["image/png"]["alt"]
                data = "".join(picture).replace("\n", "")
                image = f'<img src="data:image/png;base64,{data}" alt="{html.escape(alt, quote=True)}">'
                output["data"] = {"text/html": image, "text/plain": output["data"].get("text/plain", "")}
    return notebook


def assemble(folder: Path) -> None:
    """Write the source of the site into an empty folder."""
    shutil.copytree(
        ROOT / "docs", folder / "docs", ignore=shutil.ignore_patterns("conf.py", "*.py", "_static", "index.md")
    )
    shutil.copytree(ROOT / "docs" / "_static", folder / "_static")
    shutil.copy(ROOT / "docs" / "conf.py", folder)
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8").replace("../notebooks/", "notebooks/")
    listed = re.findall(r"^([a-z_-]+)$", index, flags=re.M)
    others = sorted({file.stem for file in (ROOT / "docs").glob("*.md")} - {"index", *listed})
    for name in listed:
        index = re.sub(rf"^{name}$", f"docs/{name}", index, flags=re.M)
    if others:
        names = "\n".join(f"docs/{name}" for name in others)
        index += f"\n```{{toctree}}\n:maxdepth: 1\n\n{names}\n```\n"
    (folder / "index.md").write_text(index, encoding="utf-8")
    (folder / "notebooks").mkdir()
    for file in sorted((ROOT / "notebooks").glob("*.ipynb")):
        text = json.dumps(page(json.loads(file.read_text(encoding="utf-8"))))
        (folder / "notebooks" / file.name).write_text(text, encoding="utf-8")


def main() -> int:
    """Build; the exit status is Sphinx's."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "site")
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary) / "source"
        source.mkdir()
        assemble(source)
        command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", str(source), str(out)]
        status = subprocess.run(command).returncode
    if not status:
        print(f"site: {out / 'index.html'}")
    return status


if __name__ == "__main__":
    raise SystemExit(main())
