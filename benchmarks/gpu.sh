#!/usr/bin/env bash
# Everything that needs a GPU, in under nine minutes on one card; see benchmarks/gpu.py --help.
# Usage: bash benchmarks/gpu.sh [--data-dir DIR] [--out benchmarks/gpu.json]
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python3}" benchmarks/gpu.py "$@"
