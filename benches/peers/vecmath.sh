#!/usr/bin/env bash
# Ours against PyTorch, alternating case by case: benches/peers/vecmath.sh [python] [options of
# vecmath.py]
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${1:-python3}
shift || true
bench=$(cargo bench -p loquat-benches --bench vecmath --no-run --message-format json 2>/dev/null |
    sed -n 's/.*"executable":"\([^"]*\/vecmath-[^"]*\)".*/\1/p' | tail -1)
export RAYON_NUM_THREADS=${RAYON_NUM_THREADS:-2}
exec "$python" benches/peers/vecmath.py --bench "$bench" --threads "$RAYON_NUM_THREADS" "$@"
