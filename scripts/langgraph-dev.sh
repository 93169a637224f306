#!/usr/bin/env bash
# LangGraph's own server (`langgraph dev`) in an environment of its own, .venv-langgraph: it wants older ones of gRPC and protobuf than we do.
# Usage: scripts/langgraph-dev.sh          Idempotent; the first run takes a minute and 400 MB.
set -euo pipefail
cd "$(dirname "$0")/.."

CLI=0.4.40
API=0.16.7
ENV=.venv-langgraph
READY="$ENV/.ready-$CLI-$API"
PYTHON=${PYTHON_LANGGRAPH:-$( [ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}

say() { printf '%s\n' "langgraph-dev: $*"; }

if [ -e "$READY" ]; then
  say "ready ($ENV, langgraph-cli $CLI, langgraph-api $API)"
  exit 0
fi
say "1/2 making $ENV"
rm -rf "$ENV"
"$PYTHON" -m venv "$ENV"

say "2/2 the server and this package, with the versions that are tested together but for those"
grep -vE '^(protobuf|grpcio|opentelemetry-.*)==' constraints/cpu.txt >"$ENV/constraints.txt"
"$ENV/bin/python" -m pip --disable-pip-version-check install --quiet --progress-bar off -c "$ENV/constraints.txt" \
  -e . "langgraph-cli[inmem]==$CLI" "langgraph-api==$API"
"$ENV/bin/langgraph" --version
touch "$READY"
say "ready ($ENV, langgraph-cli $CLI, langgraph-api $API)"
