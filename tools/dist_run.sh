#!/usr/bin/env bash
# Start a script in GPUS processes on each of NNODES nodes, with torchrun: dist_run.sh GPUS SCRIPT [ARGUMENTS]
# NNODES, NODE_RANK, MASTER_ADDR, PORT, MAX_RESTARTS and PYTHON may be set. Without a GPU the processes run on gloo.
set -euo pipefail
gpus=$1
address=${MASTER_ADDR:-127.0.0.1} port=${PORT:-29500} restarts=${MAX_RESTARTS:-0}
if [ "$restarts" = 0 ]; then
    meeting=(--node_rank="${NODE_RANK:-0}" --master_addr="$address" --master_port="$port")
else
    # In a store that they share, processes that are started again find the addresses of those before them.
    export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
    meeting=(--max_restarts="$restarts" --rdzv_backend=c10d --rdzv_endpoint="$address:$port" --rdzv_id="$port")
fi
exec "${PYTHON:-python}" -m torch.distributed.run --nnodes="${NNODES:-1}" "${meeting[@]}" --nproc_per_node="$gpus" "${@:2}"
