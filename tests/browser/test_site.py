"""The site: built without warnings, nothing from other hosts, navigation, search, an accessibility scan."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SITE = ROOT / "docs" / "build_site.py"
PAGES = sorted(f"docs/{p.stem}" for p in (ROOT / "docs").glob("*.md") if p.stem != "index")
NAMES = ["index", *PAGES, *sorted(f"notebooks/{p.stem}" for p in (ROOT / "notebooks").glob("*.ipynb"))]


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """Folder of the built site; built without a network where the system allows it."""
    if not importlib.util.find_spec("myst_nb"):
        line = "site not built: no myst-nb (python -m pip install -e '.[docs]')"
        pytest.fail(line) if os.environ.get("CI_BROWSER") == "1" else pytest.skip(line)
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, str(SITE), str(out)]
    if shutil.which("unshare") and subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode == 0:
        command = ["unshare", "-n", *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def pages(site):
    return sorted(p for p in site.rglob("*.html") if p.name not in ("search.html", "genindex.html"))


def test_every_lesson_and_page_is_there(site):
    expected = {p.stem for p in (ROOT / "notebooks").glob("*.ipynb")}
    expected |= {p.stem for p in (ROOT / "docs").glob("*.md")} - {"index"}
    assert expected <= {p.stem for p in pages(site)}


def test_nothing_is_loaded_from_another_host(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img|iframe)[^>]+src="(https?:)?//[^"]+"', text)
        loaded += re.findall(r'<link[^>]+rel="(?:stylesheet|preload)"[^>]+href="(https?:)?//[^"]+"', text)
        assert not loaded, page.name


def test_figures_keep_their_alt_text(site):
    text = (site / "notebooks" / "00_map.html").read_text(encoding="utf-8")
    images = re.findall(r"<img[^>]+data:image/png[^>]*>", text)
    assert images and all(re.search(r'alt="[^"]{20,}"', image) for image in images)


def test_links_between_pages_lead_somewhere(site):
    for page in pages(site):
        for link in re.findall(r'href="([^"#:]+\.html)', page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


@pytest.fixture
def visit(chromium, site):
    """Open a page of the site from disk, with no network; a script error fails the test."""
    contexts, troubles = [], []

    def opened(name, query="", theme="light", width=1280):
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
        context.set_offline(True)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.goto((site / name).as_uri() + query)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not troubles


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", NAMES)
def test_accessibility(visit, axe_source, name, theme):
    page = visit(f"{name}.html", theme=theme)
    page.evaluate(axe_source)
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
    found = page.evaluate("tags => axe.run({runOnly: {type: 'tag', values: tags}})", tags)["violations"]
    shown = [{"id": v["id"], "nodes": [n["html"][:200] for n in v["nodes"][:3]]} for v in found]
    assert not found, json.dumps(shown, indent=1)


@pytest.mark.browser
def test_search_finds_a_lesson(visit):
    page = visit("search.html", "?q=sliding+window")
    page.wait_for_selector("#search-results li a", timeout=20_000)
    titles = page.locator("#search-results li a").all_inner_texts()
    assert any("Map and set-up" in title for title in titles), titles


@pytest.mark.browser
def test_navigation_from_the_first_page_to_the_glossary(visit):
    page = visit("index.html")
    page.locator("a", has_text="Glossary").first.click()
    page.wait_for_load_state()
    assert page.locator("h1").first.inner_text().startswith("Glossary")


@pytest.mark.browser
def test_answers_are_folded_and_open(visit):
    page = visit("notebooks/00_map.html")
    answer = page.locator("details", has_text="classic mistake").first
    text = answer.locator("p", has_text="classic mistake")
    assert not text.is_visible()
    answer.locator("summary").click()
    assert text.is_visible()


@pytest.mark.browser
def test_a_narrow_screen_does_not_scroll_sideways(visit):
    page = visit("notebooks/00_map.html", width=360)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
