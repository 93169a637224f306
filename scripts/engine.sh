#!/usr/bin/env bash
# Brings a Docker engine up, or says exactly what is missing. Safe to run again; quick when an engine answers.
#
#   scripts/engine.sh          use a running engine, else install and start Debian's (root), else print the fix
#   scripts/engine.sh --env    print `export DOCKER_HOST=...` if the engine found needs it: eval "$(scripts/engine.sh --env)"
#
# For a second engine beside the machine's own (tests of this script): TOOLREASON_DOCKERD_DIR=DIR keeps its socket, pid file,
# data and log under DIR, and no other engine is looked for.
set -euo pipefail

DIR=${TOOLREASON_DOCKERD_DIR:-}
SOCKET=/var/run/docker.sock PIDFILE=/var/run/docker.pid LOG=/var/log/toolreason-dockerd.log
if [ -n "$DIR" ]; then SOCKET=$DIR/docker.sock PIDFILE=$DIR/docker.pid LOG=$DIR/dockerd.log; fi
WAIT_S=${TOOLREASON_DOCKERD_WAIT_S:-90}

say() { echo "engine: $*" >&2; }
fail() { say "$@"; exit 1; }

# The engine's own HTTP interface is asked with Python's standard library: Docker's command line may not be installed.
answers() { # HOST -> whether an engine answers there
  python3 - "$1" <<'PY' 2>/dev/null
import http.client, socket, sys
host = sys.argv[1]
if host.startswith("unix://"):
    wire = socket.socket(socket.AF_UNIX); wire.settimeout(10); wire.connect(host[len("unix://"):])
    http_ = http.client.HTTPConnection("localhost"); http_.sock = wire
elif host.startswith("tcp://"):
    http_ = http.client.HTTPConnection(host[len("tcp://"):], timeout=10)
else:
    sys.exit(1)
http_.request("GET", "/_ping")
sys.exit(http_.getresponse().status != 200)
PY
}

found=""
find_engine() { # sets `found` to the host of an engine that answers
  local host context
  if [ -n "$DIR" ]; then
    if answers "unix://$SOCKET"; then found=unix://$SOCKET; return 0; fi
    return 1
  fi
  if [ -n "${DOCKER_HOST:-}" ]; then # the user has chosen: use that one or fail
    case $DOCKER_HOST in
      unix://*) answers "$DOCKER_HOST" || fail "DOCKER_HOST=$DOCKER_HOST does not answer: start that engine, or unset DOCKER_HOST" ;;
      # ssh and TLS need Docker's own client
      *) answers "$DOCKER_HOST" || docker version >/dev/null 2>&1 || fail "DOCKER_HOST=$DOCKER_HOST does not answer: start that engine, or unset DOCKER_HOST" ;;
    esac
    found=$DOCKER_HOST; return 0
  fi
  context=$(docker context inspect --format '{{.Endpoints.docker.Host}}' 2>/dev/null || true)  # the user's choice in Docker's own settings
  for host in "${context:-unix://$SOCKET}" "unix://$SOCKET" "unix://${XDG_RUNTIME_DIR:-/run/user/$(id -u)}/docker.sock" "unix://${HOME:-/root}/.docker/run/docker.sock" \
    "unix://${HOME:-/root}/.docker/desktop/docker.sock"; do
    if [ -S "${host#unix://}" ] && answers "$host"; then found=$host; return 0; fi
  done
  return 1
}

print_env() {
  if [ "$found" != "${DOCKER_HOST:-unix:///var/run/docker.sock}" ]; then echo "export DOCKER_HOST=$found"; fi
}

advise() {
  if [ -S "$SOCKET" ] && [ ! -w "$SOCKET" ]; then
    fail "an engine's socket is at $SOCKET, but this user may not use it. Run: sudo usermod -aG docker $(id -un), log in again, and retry"
  fi
  case $(uname -s) in
    Darwin) fail "no Docker engine answers. Start Docker Desktop (open -a Docker), or install it: brew install --cask docker-desktop" ;;
  esac
  if command -v dockerd-rootless-setuptool.sh >/dev/null 2>&1; then
    fail "no Docker engine answers. Run: dockerd-rootless-setuptool.sh install && systemctl --user start docker, and retry"
  fi
  if command -v dockerd >/dev/null 2>&1; then fail "the Docker engine is not running. Run: sudo systemctl start docker, and retry"; fi
  if command -v apt-get >/dev/null 2>&1; then
    fail "no Docker engine here. Run: sudo apt-get update && sudo apt-get install -y docker.io && sudo usermod -aG docker $(id -un), log in again, and retry"
  fi
  fail "no Docker engine here. Install Docker Engine or Docker Desktop, start it, and retry"
}

install_engine() {
  command -v apt-get >/dev/null 2>&1 || advise
  say "installing docker.io with apt-get"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q >&2
  # with what it recommends: apparmor, without which containers do not start where the kernel has it, and cgroupfs-mount
  apt-get install -y -q docker.io >&2
  hash -r
}

running_dockerd() { # whether the dockerd of the pid file lives (a killed one may be left as a zombie for a while)
  local pid
  pid=$(cat "$PIDFILE" 2>/dev/null || true)
  [ -n "$pid" ] && [ "$(cat "/proc/$pid/comm" 2>/dev/null || true)" = dockerd ] && ! grep -qs '^State:[[:space:]]*Z' "/proc/$pid/status"
}

started="" # the process that this script started
start_engine() {
  if running_dockerd; then say "a dockerd is starting already"; return; fi
  if [ -f "$PIDFILE" ]; then # the next dockerd refuses to start beside it
    say "removing the pid file that a dead dockerd left: $PIDFILE"
    rm -f "$PIDFILE"
  fi
  if [ -z "$DIR" ] && [ -d /run/systemd/system ]; then
    say "starting the docker service"
    systemctl start docker >&2 || say "systemctl could not start docker: journalctl -u docker"
    return
  fi
  local options=(--host "unix://$SOCKET" --pidfile "$PIDFILE")
  if ! [ -e /sys/fs/cgroup/cgroup.controllers ] && ! [ -d /sys/fs/cgroup/memory ] && command -v cgroupfs-mount >/dev/null; then
    cgroupfs-mount >&2 || true  # what the init system would have done
  fi
  if [ -n "$DIR" ]; then options+=(--data-root "$DIR/data" --exec-root "$DIR/exec" --bridge none --iptables=false); fi
  say "starting dockerd, log in $LOG"
  # a session of its own and no descriptors of ours: it outlives this shell, and nobody waits for its output
  setsid nohup dockerd "${options[@]}" >>"$LOG" 2>&1 </dev/null &
  started=$!
  disown
}

no_start() {
  if [ -f "$LOG" ]; then tail -n 15 "$LOG" >&2; fi
  fail "$1; its log: $LOG, or journalctl -u docker"
}

wait_for_engine() {
  local waited=0 tries=1
  until find_engine; do
    [ "$waited" -lt "$WAIT_S" ] || no_start "dockerd did not answer within $WAIT_S s"
    if [ -n "$started" ] && ! kill -0 "$started" 2>/dev/null; then
      # one that is started right after another was killed gives up on that one's containerd; the next finds the way free
      [ "$tries" -lt 3 ] || no_start "dockerd ended, $tries times"
      tries=$((tries + 1)) started=""
      start_engine
    elif [ -z "$started" ] && ! running_dockerd && ! [ -d /run/systemd/system ]; then
      start_engine  # the one that we waited for has died
    fi
    sleep 1
    waited=$((waited + 1))
  done
}

main() {
  command -v python3 >/dev/null 2>&1 || fail "python3 is missing: install Python 3.11 or later"
  if find_engine; then
    if [ "${1:-}" = --env ]; then print_env; else say "using the one at $found"; fi
    return
  fi
  if [ "${1:-}" = --env ]; then fail "none answers: run scripts/engine.sh first"; fi
  if [ "$(id -u)" -ne 0 ]; then advise; fi
  command -v dockerd >/dev/null 2>&1 || install_engine
  start_engine
  wait_for_engine
  say "running at $found"
}

main "$@"
