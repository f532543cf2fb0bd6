#!/bin/sh
# Everything that needs a GPU, in one go and in less than eight minutes:
#
#     benchmarks/gpu_day.sh [REPORT]        # gpu_day.json unless named; PYTHON=python3 WHEELS=folder
#     benchmarks/gpu_day.sh --cpu [REPORT]  # what runs without a GPU
#     benchmarks/gpu_day.sh --cpu --quick [REPORT]  # the same with tiny sizes and two models, to try the script
#
# REPORT is a path from the root of the repository. Needs Python with torch 2.11 or newer for CUDA. A part that needs more
# than the machine has says so in the report, and the others run; where the network cannot be reached, carry it as wheels and name their folder:
#
#     pip download --only-binary=:all: --no-deps -d wheels timm av pydantic pydantic-core faster-coco-eval
#
# No data is needed: photos come with the package, everything else is drawn.
set -u
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
export PYTHONPATH="$PWD/src:$PWD/tests${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
if [ -n "${WHEELS:-}" ]; then
    site=$(mktemp -d)
    trap 'rm -r "$site"' EXIT
    "$PYTHON" -m pip install -q --no-index --no-deps --target "$site" "$WHEELS"/*.whl || exit 1
    PYTHONPATH="$PYTHONPATH:$site"
fi
"$PYTHON" benchmarks/gpu_day.py "$@"
