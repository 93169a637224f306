#!/usr/bin/env bash
# A Chromium for the tests of the viewer's page: prints its path.
#
#   scripts/chromium.sh           find a browser, or install Debian's (root), else say what to run
#
# $TOOLREASON_CHROMIUM names another one.
set -euo pipefail

say() { echo "chromium: $*" >&2; }
fail() { say "$@"; exit 1; }

find_browser() {
  local name
  for name in ${TOOLREASON_CHROMIUM:-chromium chromium-browser google-chrome google-chrome-stable}; do
    if command -v "$name"; then return 0; fi
  done
  return 1
}

if [ -n "${TOOLREASON_CHROMIUM:-}" ] && ! command -v "$TOOLREASON_CHROMIUM" >/dev/null; then
  fail "TOOLREASON_CHROMIUM=$TOOLREASON_CHROMIUM is no program: name a Chromium or Chrome, or unset it"
fi
if find_browser; then exit; fi
command -v apt-get >/dev/null 2>&1 || fail "no Chromium here. Install one, and set TOOLREASON_CHROMIUM to its program"
[ "$(id -u)" -eq 0 ] || fail "no Chromium here. Run: sudo apt-get update && sudo apt-get install -y chromium, and retry"
say "installing chromium with apt-get"
export DEBIAN_FRONTEND=noninteractive
apt-get update -q >&2
apt-get install -y -q --no-install-recommends chromium >&2
find_browser || fail "apt-get has installed chromium, but there is no such program"
