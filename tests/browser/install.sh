#!/usr/bin/env bash
# What the browser tests need beside `make test`: Debian's Chromium, the site's tools, axe-core.
# Run it after the environment exists; as root, or Chromium installed beforehand.
set -euo pipefail
cd "$(dirname "$0")/../.."
if ! command -v chromium >/dev/null; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null
fi
.venv/bin/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'  # the site's tools
npm install --prefix tests/browser --no-package-lock --no-audit --no-fund --loglevel=error
