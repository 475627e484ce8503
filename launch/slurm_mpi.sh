#!/usr/bin/env bash
# Train over MPI in a Slurm job: sbatch launch/slurm_mpi.sh CONFIG.toml [more `hdnn-dist train` arguments]
#
#   sbatch --nodes 4 launch/slurm_mpi.sh launch/configs/digits_grid64.toml --set epochs=10
#
# Submit it in the folder that holds .venv, or with the environment of Python active, on a disk of all nodes. Lines to
# change: these, which sbatch's own options override; and MPI_TYPE, `pmi2` for MPICH and what is like it, `pmix` for
# Open MPI (srun --mpi=list says what there is). mpi4py has to load the MPI that srun speaks to.
#SBATCH --job-name=hdnn-dist
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=1
#SBATCH --time=01:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: sbatch $0 CONFIG.toml [arguments of hdnn-dist train]" >&2; exit 2; }
[ -n "${VIRTUAL_ENV:-}" ] || PATH="$PWD/.venv/bin:$PATH"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

# Before its time is over, or when it is preempted, the job is asked to leave: ranks write a checkpoint and end with 75,
# and it is queued again. The run folder is its own, and the last checkpoint in it, if there is any, is where it goes on.
asked=
trap 'trap "" USR1 TERM; asked=yes; scancel --signal=TERM "$SLURM_JOB_ID"' USR1 TERM

# -m mpi4py: an exception on one rank ends the job on all of them
srun --mpi="${MPI_TYPE:-pmi2}" --kill-on-bad-exit=1 python -m mpi4py -m hdnn_dist train \
    --run-dir "runs/$SLURM_JOB_ID" --resume auto "$@" &
wait $! && status=0 || status=$? # which a signal interrupts
[ -z "$asked" ] || { wait $! && status=0 || status=$?; }
[ -z "$asked" ] || [ "$status" = 0 ] || scontrol requeue "$SLURM_JOB_ID"
exit "$status"
