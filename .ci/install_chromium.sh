#!/bin/sh
# Installs the browser that tests/endtoend/test_plan_page.py needs, where the machine has none. Debian and Ubuntu.
set -eu

for program in chromium chromium-browser google-chrome; do
  if command -v "$program" >/dev/null 2>&1; then exit 0; fi
done
if ! command -v apt-get >/dev/null 2>&1 || [ "$(id -u)" != 0 ]; then
  echo "install_chromium.sh: needs apt-get and root; install chromium by hand" >&2
  exit 2
fi
said=$(mktemp)
trap 'rm -f "$said"' EXIT
if ! { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; } >"$said" 2>&1; then
  tail -n 20 "$said" >&2
  echo "install_chromium.sh: apt-get could not install chromium" >&2
  exit 1
fi
echo "install_chromium.sh: installed $(chromium --version 2>/dev/null)"
