#!/usr/bin/env bash
# Start a script in GPUS processes on each of NNODES nodes, with torchrun: dist_run.sh GPUS SCRIPT [ARGUMENTS]
# NNODES, NODE_RANK, MASTER_ADDR, PORT and PYTHON may be set. Without a GPU the processes run on gloo.
set -euo pipefail
gpus=$1
exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$gpus" \
    "${@:2}"
