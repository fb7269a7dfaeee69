#!/usr/bin/env bash
# Test on several GPUs: dist_test.sh CONFIG CHECKPOINT GPUS [ARGUMENTS OF test.py]
set -euo pipefail
if [ $# -lt 3 ]; then echo "usage: $0 CONFIG CHECKPOINT GPUS [ARGUMENTS OF test.py]" >&2; exit 2; fi
tools=$(dirname "$0")
exec "$tools/dist_run.sh" "$3" "$tools/test.py" "$1" "$2" --launcher pytorch "${@:4}"
