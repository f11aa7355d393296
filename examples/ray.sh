#!/usr/bin/env bash
# Train under Ray, with trainers, rollout workers and judges where Ray finds places for them:
#
#     bash examples/ray.sh [CONFIG [--SETTING VALUE ...]]      on this machine
#     RAY_ADDRESS=HOST:6379 bash examples/ray.sh ...           on a cluster that is up (`ray start`), of which this is one
#     sbatch examples/ray.sh ...                               on the machines of a Slurm job
#
# What goes where is in [cluster], such as --cluster.workers 8 --cluster.worker_gpus 1; see docs/scaling.md. A run that was
# stopped, requeued or submitted again goes on from its last checkpoint. Start it from the root of the repository, with the
# environment of `make setup` in .venv or comity on the PATH; several machines need a folder that all of them see, with the
# repository in it, and --cluster.storage for Ray Train.
#SBATCH --job-name=comity-ray
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=48:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=comity-ray-%j.log
set -euo pipefail

config=${1:-configs/qwen3-0.6b.toml}
shift $(($# > 0 ? 1 : 0))
if [ -d .venv ]; then PATH="$PWD/.venv/bin:$PATH"; fi

train=(comity train --config "$config" --resume --cluster ray)
if [ -z "${SLURM_JOB_NODELIST:-}" ]; then
    exec "${train[@]}" --address "${RAY_ADDRESS:-local}" "$@"
fi
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
# Jobs that share a machine must not share a port.
port=$((20000 + SLURM_JOB_ID % 20000))
export first port
# Machines of one job may start minutes apart, and a busy one takes its time: Ray would wait half a minute, for the first
# machine too. Nothing is reported to Ray's makers.
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=${RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT:-600}
export RAY_agent_register_timeout_ms=${RAY_agent_register_timeout_ms:-120000}
export RAY_USAGE_STATS_ENABLED=${RAY_USAGE_STATS_ENABLED:-0}
# Ray asks for a token, which a machine other than the first would lack; this one is the job's own.
export RAY_AUTH_MODE=${RAY_AUTH_MODE:-token}
export RAY_AUTH_TOKEN=${RAY_AUTH_TOKEN:-$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')}
# Ray starts on every machine, and the command on the first of them; when that ends, Ray ends everywhere.
exec srun --kill-on-bad-exit=1 bash -c '
    is_up() { (exec 3<> "/dev/tcp/$first/$port") 2> /dev/null; }
    until [ "$SLURM_NODEID" = 0 ] || is_up || [ "$SECONDS" -gt 600 ]; do sleep 1; done
    # Ray says nothing of how the job went: where it waited for machines it ends with status 1 on the first, and with an
    # error on the others once the first has ended. The command itself leaves its status.
    status=$(mktemp)
    ray symmetric-run --address "$first:$port" --min-nodes "$SLURM_NNODES" -- \
        bash -c "\"\$@\"; echo \$? > \"\$0\"" "$status" "$@" || echo "Ray has ended on $(hostname)" >&2
    if [ "$SLURM_NODEID" = 0 ]; then code=$(grep . "$status" || echo 1); else code=0; fi
    rm -f "$status"
    exit "$code"
' comity "${train[@]}" --address auto "$@"
