#!/usr/bin/env bash
# Train on several GPUs: dist_train.sh CONFIG GPUS [ARGUMENTS OF train.py]
set -euo pipefail
if [ $# -lt 2 ]; then echo "usage: $0 CONFIG GPUS [ARGUMENTS OF train.py]" >&2; exit 2; fi
tools=$(dirname "$0")
exec "$tools/dist_run.sh" "$2" "$tools/train.py" "$1" --launcher pytorch "${@:3}"
