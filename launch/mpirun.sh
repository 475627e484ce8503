#!/usr/bin/env bash
# Train under MPI: launch/mpirun.sh RANKS CONFIG.toml [more `hdnn-dist train` arguments]
#
#   launch/mpirun.sh 8 launch/configs/double_circles_ring8.toml --set epochs=10
#
# Several machines: inside a batch job mpiexec finds them itself; elsewhere name them in a file, one
# host a line, as HYDRA_HOST_FILE=hosts.txt (MPICH). RANKS is the number of ranks on all of them.
# More ranks than cores works but is slow: MPICH waits for messages by spinning.
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: $0 RANKS CONFIG.toml [arguments of hdnn-dist train]" >&2; exit 2; }
ranks=$1 config=$2
shift 2
[ -n "${VIRTUAL_ENV:-}" ] || PATH="$(dirname "$0")/../.venv/bin:$PATH"

# mpiexec says which process was killed, not which rank; and where a rank ends before it has joined MPI,
# only a signal makes it end the others. So there is a shell round each rank.
# shellcheck disable=SC2016
rank='trap : INT TERM
    "$@"
    status=$?
    case $status in 0|75|130) exit $status;; esac
    [ $status -le 128 ] ||
        echo "rank ${PMI_RANK:-${OMPI_COMM_WORLD_RANK:-?}} was ended by signal $((status - 128))" >&2
    kill -KILL $$'

# -m mpi4py: an exception on one rank ends the job on all of them
OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} exec mpiexec -n "$ranks" sh -c "$rank" sh python -m mpi4py \
    -m hdnn_dist train "$config" "$@"
