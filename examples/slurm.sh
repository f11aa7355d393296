#!/usr/bin/env bash
# Train on two machines with eight GPUs each:
#
#     sbatch examples/slurm.sh [CONFIG [--SETTING VALUE ...]]
#
# A job that was stopped, requeued or submitted again goes on from its last checkpoint. Options of sbatch win over the
# lines below, so `sbatch --nodes=1 --gpus-per-node=4 examples/slurm.sh` needs no other file. Submit it from the root of
# the repository, with the environment of `make setup` in .venv or comity on the PATH.
#SBATCH --job-name=comity
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=48:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=comity-%j.log
set -euo pipefail

config=${1:-configs/qwen3-14b-qlora.toml}
shift $(($# > 0 ? 1 : 0))
if [ -d .venv ]; then PATH="$PWD/.venv/bin:$PATH"; fi

nodes=$SLURM_NNODES
processes_per_node=${SLURM_GPUS_ON_NODE:-8}
main_process_ip=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
# Jobs that share a machine must not share a port.
main_process_port=$((20000 + SLURM_JOB_ID % 20000))
export main_process_ip main_process_port nodes processes_per_node

# One launcher on each machine; SLURM_NODEID is known inside srun only. A launcher that fails ends the others.
srun --kill-on-bad-exit=1 bash -c '
    exec accelerate launch --config_file configs/accelerate/two-nodes.yaml \
        --num_machines "$nodes" --num_processes "$((nodes * processes_per_node))" --machine_rank "$SLURM_NODEID" \
        --main_process_ip "$main_process_ip" --main_process_port "$main_process_port" \
        -m comity train --resume "$@"
' comity --config "$config" "$@"
