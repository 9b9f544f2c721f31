#!/bin/sh
# Installs what tests/endtoend/test_slurm.py and test_netns.py need and the machine lacks: a Slurm with accounting, munge, iproute2.
# Debian and Ubuntu. Nothing is started: the tests start their own daemons on loopback and end them.
set -eu

missing=""
need() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || missing="$missing $2"; }
need slurmctld slurm-wlm
need munged munge
need slurmdbd slurmdbd
need mariadbd mariadb-server
need ip iproute2
ls /usr/lib/*/slurm-wlm/accounting_storage_mysql.so >/dev/null 2>&1 || missing="$missing slurm-wlm-mysql-plugin"

[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null 2>&1; then
  echo "install_slurm.sh: no apt-get here; install by hand:$missing" >&2
  exit 2
fi
if [ "$(id -u)" != 0 ]; then
  echo "install_slurm.sh: needs root to install:$missing" >&2
  exit 2
fi

# The packages' own services must not start: they would hold the ports, and a container has no init to start them.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
else
  policy=""
fi
said=$(mktemp)
trap 'rm -f "$said" ${policy:+"$policy"}' EXIT
# Debian's scripts say much that is no error on a machine without an init.
# shellcheck disable=SC2086
if ! { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing; } >"$said" 2>&1; then
  tail -n 20 "$said" >&2
  echo "install_slurm.sh: apt-get could not install:$missing" >&2
  exit 1
fi
echo "install_slurm.sh: installed$missing; $(/usr/sbin/slurmctld -V)"
