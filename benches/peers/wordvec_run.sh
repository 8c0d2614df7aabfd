#!/usr/bin/env bash
# Ours and the peers alternate, so that noise of the machine affects all of them. Usage:
#   PYTHON=python LOQUAT=target/release/examples \
#       wordvec_run.sh CORPUS OUT_FOLDER REPEATS [THREADS] [EPOCHS]
# Prints wall and CPU seconds of whole runs (reading, vocabulary, training, saving). On a shared
# machine use the CPU seconds.
set -euo pipefail
corpus=$1 out=$2 repeats=$3 threads=${4:-2} epochs=${5:-1}
here=$(dirname "$0")
ours() { # name, arguments
  local name=$1; shift
  local t; t=$( { TIMEFORMAT='wall_s,%R,cpu_user_s,%U'; time "$LOQUAT/word2vec" --text "$corpus" --out "$out/ours-$name.bin" --format binary \
      --threads "$threads" --epochs "$epochs" "$@" >/dev/null; } 2>&1 )
  echo "loquat-$name,threads=$threads,epochs=$epochs,$t"
}
for _ in $(seq "$repeats"); do
  for dim in 100 300; do
    ours "sg-$dim" --dim "$dim"
    "$PYTHON" "$here/wordvec_gensim.py" "$corpus" sg "$dim" "$threads" "$epochs" 1 "$out/gensim-sg-$dim.bin"
  done
  ours cbow-100 --architecture cbow
  "$PYTHON" "$here/wordvec_gensim.py" "$corpus" cbow 100 "$threads" "$epochs" 1 "$out/gensim-cbow-100.bin"
  ours subwords-100 --subwords
  "$PYTHON" "$here/wordvec_fasttext.py" "$corpus" skipgram 100 "$threads" "$epochs" 1 -
done
