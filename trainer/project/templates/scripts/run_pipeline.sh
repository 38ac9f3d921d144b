#!/usr/bin/env bash
# Validate, convert, train, evaluate. run_pipeline.sh [configs/v1.yaml]; PYTHON chooses the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-python3}"
arguments=()
[ $# -gt 0 ] && arguments=(--config "$1")
for step in 01_validate_data 02_convert_format 03_train 04_evaluate; do
  echo "== $step"
  "$python" "scripts/$step.py" ${arguments[@]+"${arguments[@]}"}
done
