#!/usr/bin/env bash
# Train under Slurm: slurm_train.sh PARTITION JOB_NAME CONFIG [ARGUMENTS OF train.py]
# GPUS, GPUS_PER_NODE, CPUS_PER_TASK, PORT, SRUN_ARGS and PYTHON may be set; GRES= (empty) asks for no GPU.
# With sbatch --signal=USR1@SECONDS, training saves a checkpoint, and the job is requeued and resumes from it.
set -euo pipefail
if [ $# -lt 3 ]; then echo "usage: $0 PARTITION JOB_NAME CONFIG [ARGUMENTS OF train.py]" >&2; exit 2; fi
gpus=${GPUS:-8}
per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
gres=${GRES-gpu:$per_node}
export MASTER_PORT=${PORT:-29500}
# SRUN_ARGS holds several words on purpose.
# shellcheck disable=SC2206
step=(srun --partition="$1" --job-name="$2" ${gres:+--gres="$gres"}
    --ntasks="$gpus" --ntasks-per-node="$per_node" --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1
    ${SRUN_ARGS:-} "${PYTHON:-python}" -u "$(dirname "$0")/train.py" "$3" --launcher slurm "${@:4}")
if [ -z "${SLURM_JOB_ID:-}" ]; then exec "${step[@]}"; fi
"${step[@]}" ${SLURM_RESTART_COUNT:+--resume} && exit
status=$?
# 128 and SIGUSR1: the time of the job is nearly over.
if [ "$status" = 138 ]; then exec scontrol requeue "$SLURM_JOB_ID"; fi
exit "$status"
