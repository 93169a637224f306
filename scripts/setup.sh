#!/usr/bin/env bash
# Makes .venv with toolreason (editable), its extras for the demo and the tests, and the developers' tools.
# A second run does nothing unless pyproject.toml, the constraints or this script changed.
#
#   PYTHON=python3.12 scripts/setup.sh    use this interpreter (3.11 or later)
#   EXTRAS=... scripts/setup.sh           other extras
#
# Without a GPU the versions are those of constraints/cpu.txt; with one they are free, so that torch and CUDA fit the driver.
set -euo pipefail
cd "$(dirname "$0")/.."

EXTRAS=${EXTRAS:-transformers,train,serve,sqlite,gym,datasets,dev}
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

say() { echo "setup: $*"; }
fail() { echo "setup: $*" >&2; exit 1; }

recent() { command -v "$1" >/dev/null 2>&1 && "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

choose_python() { # 3.11 first: it is what the constraints were resolved with
  local candidate
  for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3}; do
    if recent "$candidate"; then echo "$candidate"; return; fi
  done
  fail "needs Python 3.11 or later, found ${PYTHON:-$(python3 --version 2>&1 || true)}. Debian 12: apt-get install python3 python3-venv; else set PYTHON"
}

make_venv() {
  local python=$1 version
  "$python" -c 'import ensurepip, venv' 2>/dev/null || {
    version=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
      say "installing $version, which Debian ships apart from Python"
      export DEBIAN_FRONTEND=noninteractive
      apt-get update -q && apt-get install -y -q "$version"
    else
      fail "$python has no venv module. Run: sudo apt-get install $version"
    fi
  }
  "$python" -m venv .venv
}

can_compile() { # pycosat, which reasoning-gym needs, has no wheel
  command -v "${CC:-cc}" >/dev/null 2>&1 && [ -e "$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["include"])')/Python.h" ]
}

make_compiler() {
  local headers
  headers=$(.venv/bin/python -c 'import sys; print("libpython%d.%d-dev" % sys.version_info[:2])')
  if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
    say "installing gcc and Python's headers: one of reasoning-gym's libraries has to be compiled"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q && apt-get install -y -q --no-install-recommends gcc libc6-dev "$headers"
  else
    fail "one of reasoning-gym's libraries has to be compiled. Run: sudo apt-get install gcc libc6-dev $headers"
  fi
}

has_gpu() { command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU; }

wanted=$(cat pyproject.toml constraints/cpu.txt scripts/setup.sh | cksum)" $EXTRAS"
if [ -x .venv/bin/python ] && [ "$(cat .venv/.ready 2>/dev/null)" = "$wanted" ]; then
  say "ready (.venv)"
  exit 0
fi

.venv/bin/python -m pip --version >/dev/null 2>&1 || { # absent, or of an interpreter that is gone
  python=$(choose_python)
  say "1/3 making .venv with $("$python" --version)"
  rm -rf .venv
  make_venv "$python"
}
case ",$EXTRAS," in *,gym,*) can_compile || make_compiler ;; esac
pip=(.venv/bin/python -m pip install --quiet --progress-bar off)
if has_gpu; then
  say "2/3 a GPU is here: torch for CUDA, constraints/cpu.txt not used"
  say "3/3 toolreason[$EXTRAS]"
  "${pip[@]}" -e ".[$EXTRAS]"
else
  pip+=(-c constraints/cpu.txt)
  say "2/3 torch for CPUs (an index without a CPU build gives the CUDA one, which works and is large:"
  say "    set PIP_EXTRA_INDEX_URL to PyTorch's index of CPU builds to avoid that)"
  "${pip[@]}" torch
  say "3/3 toolreason[$EXTRAS], versions of constraints/cpu.txt"
  "${pip[@]}" -e ".[$EXTRAS]"
fi
"${pip[@]}" --no-deps openenv==0.10.0 # for tests: the rules of its training traces, without the servers that it comes with
echo "$wanted" >.venv/.ready
say "ready (.venv)"
