#!/usr/bin/env bash
# Train under torchrun: launch/torchrun.sh RANKS CONFIG.toml [more `hdnn-dist train` arguments]
#
#   launch/torchrun.sh 8 launch/configs/double_circles_ring8.toml --set epochs=10
#
# Several machines: the same command on each, RANKS being the ranks on that machine, with the number
# of machines and a host:port of one of them that the others can reach:
#
#   NODES=2 RENDEZVOUS=node0:29400 launch/torchrun.sh 8 launch/configs/double_circles_ring8.toml
#
# Where a machine's own name resolves to 127.0.1.1 (getent hosts "$(hostname)"; Debian's habit), the
# others cannot reach it: set GLOO_SOCKET_IFNAME there to the interface between them, such as eth0.
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: $0 RANKS CONFIG.toml [arguments of hdnn-dist train]" >&2; exit 2; }
ranks=$1 config=$2
shift 2
here=$(dirname "$0")
[ -n "${VIRTUAL_ENV:-}" ] || PATH="$here/../.venv/bin:$PATH"

if [ -n "${RENDEZVOUS:-}" ]; then
    meet=(--nnodes "${NODES:?how many machines, e.g. NODES=2}" --rdzv-backend c10d --rdzv-id hdnn-dist)
else # --standalone would listen on every network interface; a private file and the loopback do not
    export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
    meet=(--rdzv-backend c10d --rdzv-conf store_type=file --local-addr 127.0.0.1)
fi
OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} exec python "$here/torchrun.py" "${meet[@]}" --nproc-per-node "$ranks" \
    -m hdnn_dist train "$config" "$@"
