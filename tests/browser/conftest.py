"""Chromium for the explorer's pages. Not there: the tests are skipped in one line, or with CI_BROWSER=1 they fail."""

import pytest
from needs import AXE, CHROMIUM, require_browser

FLAGS = [
    "--no-sandbox",  # root in a container
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def chromium():
    """A running browser, its profile new and empty."""
    require_browser()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def axe_source(chromium) -> str:
    return AXE.read_text(encoding="utf-8")


@pytest.fixture
def open_page(chromium, tmp_path):
    """open_page(explorer, hash="", width=, height=, theme=) saves the page and opens it from disk, without a network.

    After the test no script error, no dialog and no request but for the file itself may have happened.
    """
    contexts, troubles = [], []

    def opened(explorer, hash="", width=1440, height=900, theme="light", errors=False):
        path = explorer.save(tmp_path / f"explorer{len(contexts)}.html")
        context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=theme)
        context.set_offline(True)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        if not errors:
            page.on("console", lambda message: message.type == "error" and troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("dialog", lambda dialog: (troubles.append("dialog " + dialog.message), dialog.dismiss()))
        page.on(
            "request",
            lambda request: (
                request.url.split("#")[0] == path.as_uri()
                or request.url.startswith("blob:")
                or errors
                or troubles.append("request " + request.url)
            ),
        )
        page.goto(path.as_uri() + hash)
        page.wait_for_selector("html[data-ready]")
        settle(page)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not troubles


def settle(page) -> None:
    """Waits until what was asked for is drawn: two frames."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
