"""What the browser tests need, and the one line said where it is missing."""

import importlib.util
import os
import shutil
from pathlib import Path

import pytest

AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


def require_browser() -> None:
    """Skips the test or, called while a module is read, all its tests; with CI_BROWSER=1 it fails instead."""
    found = {"Chromium": CHROMIUM, "Playwright": importlib.util.find_spec("playwright"), "axe-core": AXE.exists()}
    missing = [name for name, there in found.items() if not there]
    if missing:
        line = f"browser tests not run: no {', '.join(missing)} (tests/browser/install.sh installs what they need)"
        if os.environ.get("CI_BROWSER") == "1":
            pytest.fail(line, pytrace=False)
        pytest.skip(line, allow_module_level=True)
