#!/usr/bin/env bash
# Compares ours with PyTorch and Rust crates, alternating:
#   benches/peers/gemm.sh [python] [options of gemm.py]                  matrix products
#   benches/peers/gemm.sh [python] attention [options of attention.py]   attention
#   benches/peers/gemm.sh [python] decode [options of decode.py]         decoding
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${1:-python3}
shift || true
what=gemm
case "${1:-}" in attention | decode) what=$1 && shift ;; esac
bench=$(cargo bench -p loquat-benches --bench $what --no-run --message-format json 2>/dev/null |
    sed -n 's/.*"executable":"\([^"]*\/'$what'-[^"]*\)".*/\1/p' | tail -1)
export RAYON_NUM_THREADS=${RAYON_NUM_THREADS:-2}
rust=()
if [ $what = gemm ] && [ -z "${WITHOUT_CRATES:-}" ]; then
    target=$(cd benches/peers/rust && RUSTFLAGS=-Ctarget-cpu=native cargo build --release --message-format json 2>/dev/null |
        sed -n 's/.*"executable":"\([^"]*gemm-peers\)".*/\1/p' | tail -1)
    rust=(--rust "$target")
fi
exec "$python" benches/peers/$what.py --bench "$bench" "${rust[@]}" --threads "$RAYON_NUM_THREADS" "$@"
