#!/usr/bin/env bash
# LangGraph's own server (`langgraph dev`) in an environment of its own, .venv-langgraph: it wants older ones of gRPC and protobuf than we do.
# Usage: scripts/langgraph-dev.sh             Idempotent; the first run takes a minute and 300 MB. A second one does nothing
#                                             unless pyproject.toml, the constraints or this script changed.
#        EXTRAS=sqlite,transformers scripts/langgraph-dev.sh   with a policy in the process, and 1 GB more
set -euo pipefail
cd "$(dirname "$0")/.."

CLI=0.4.40
API=0.16.7
EXTRAS=${EXTRAS:-sqlite} # uct's library of tools
ENV=.venv-langgraph
PYTHON=${PYTHON_LANGGRAPH:-$( [ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}

say() { printf '%s\n' "langgraph-dev: $*"; }

wanted=$(cat pyproject.toml constraints/cpu.txt scripts/langgraph-dev.sh | cksum)" $EXTRAS"
if [ -x "$ENV/bin/langgraph" ] && [ "$(cat "$ENV/.ready" 2>/dev/null)" = "$wanted" ]; then
  say "ready ($ENV, langgraph-cli $CLI, langgraph-api $API)"
  exit 0
fi
"$ENV/bin/python" -m pip --version >/dev/null 2>&1 || { # absent, or of an interpreter that is gone
  say "1/2 making $ENV"
  rm -rf "$ENV"
  "$PYTHON" -m venv "$ENV"
}

say "2/2 the server and toolreason[$EXTRAS], with the versions that are tested together but for those"
grep -vE '^(protobuf|grpcio|opentelemetry-.*)==' constraints/cpu.txt >"$ENV/constraints.txt"
"$ENV/bin/python" -m pip --disable-pip-version-check install --quiet --progress-bar off -c "$ENV/constraints.txt" \
  -e ".[$EXTRAS]" "langgraph-cli[inmem]==$CLI" "langgraph-api==$API"
LANGGRAPH_CLI_NO_ANALYTICS=1 "$ENV/bin/langgraph" --version
echo "$wanted" >"$ENV/.ready"
say "ready ($ENV, langgraph-cli $CLI, langgraph-api $API)"
