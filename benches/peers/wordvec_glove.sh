#!/usr/bin/env bash
# The programs of GloVe's authors, one whole run: wordvec_glove.sh PROGRAMS CORPUS OUT DIM THREADS
# EPOCHS. PROGRAMS is the folder of vocab_count, cooccur, shuffle and glove, built from their source
# with gcc -O3 -march=native -funroll-loops -ffast-math. Window 15, min_count 5, x_max 10.
set -euo pipefail
programs=$1 corpus=$2 out=$3 dim=$4 threads=$5 epochs=$6
"$programs/vocab_count" -min-count 5 -verbose 0 <"$corpus" >"$out.vocab"
"$programs/cooccur" -vocab-file "$out.vocab" -window-size 15 -memory 4 -verbose 0 <"$corpus" >"$out.pairs"
"$programs/shuffle" -memory 4 -verbose 0 <"$out.pairs" >"$out.shuffled"
"$programs/glove" -input-file "$out.shuffled" -vocab-file "$out.vocab" -save-file "$out" -vector-size "$dim" \
    -threads "$threads" -iter "$epochs" -x-max 10 -binary 0 -verbose 0
rm "$out.pairs" "$out.shuffled"
