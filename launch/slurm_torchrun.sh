#!/usr/bin/env bash
# Train under torchrun in a Slurm job: sbatch launch/slurm_torchrun.sh CONFIG.toml [more `hdnn-dist train` arguments]
#
#   sbatch --nodes 4 launch/slurm_torchrun.sh launch/configs/digits_grid64.toml --set epochs=10
#
# Submit it in the folder that holds launch/, on a disk of all nodes. Lines to change: these, which sbatch's own options
# override. A node runs one torchrun, and that a rank on each of its cores.
#SBATCH --job-name=hdnn-dist
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=4
#SBATCH --time=01:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: sbatch $0 CONFIG.toml [arguments of hdnn-dist train]" >&2; exit 2; }
ranks=${SLURM_CPUS_PER_TASK:?start with sbatch, which reads the lines above}

# The first node is where the ranks meet, at a port that other jobs there are unlikely to have.
NODES=$SLURM_JOB_NUM_NODES
RENDEZVOUS=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1):$((20000 + SLURM_JOB_ID % 10000))
export NODES RENDEZVOUS

# Before its time is over, or when it is preempted, the job is asked to leave: ranks write a checkpoint and end with 75,
# and it is queued again. The run folder is its own, and the last checkpoint in it, if there is any, is where it goes on.
asked=
trap 'trap "" USR1 TERM; asked=yes; scancel --signal=TERM "$SLURM_JOB_ID"' USR1 TERM

srun --mpi=none --cpus-per-task="$ranks" --kill-on-bad-exit=1 launch/torchrun.sh "$ranks" \
    --run-dir "runs/$SLURM_JOB_ID" --resume auto "$@" &
wait $! && status=0 || status=$? # which a signal interrupts
[ -z "$asked" ] || { wait $! && status=0 || status=$?; }
[ -z "$asked" ] || [ "$status" = 0 ] || scontrol requeue "$SLURM_JOB_ID"
exit "$status"
