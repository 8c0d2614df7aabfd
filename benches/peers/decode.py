"""Decoding and prompt processing against benches/decode.rs, alternating; random weights of public
models' sizes.

    python decode.py --bench PATH [--peer transformers|llama.cpp|ctranslate2|candle] [--threads N]
                     [--rounds N] [--models gpt2-124m,…] [--weights f32,bf16] [--packed]
                     [--prefill f32|bf16] [--tokens N] [--work FOLDER]

`benches/peers/gemm.sh PYTHON decode [options]` builds the bench and runs this. A ratio is theirs ÷
ours in time, so above 1 ours is faster. Default of `--prefill`: the precision of the weights, bf16
for f16 weights. `--packed`: ours keeps packed weights (`Module::keep_packed`).
"""

import argparse
import os
import statistics
import tempfile
import time

from decode_peers import PEERS
from server import Server


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bench", required=True)
    parser.add_argument("--peer", default="transformers", choices=PEERS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", default="gpt2-124m,llama-110m")
    parser.add_argument("--weights", default="f32,bf16")
    parser.add_argument("--packed", action="store_true")
    parser.add_argument("--prefill", choices=["f32", "bf16"])
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--work", default=os.path.join(tempfile.gettempdir(), "loquat-peers"))
    args = parser.parse_args()
    os.makedirs(args.work, exist_ok=True)

    ours = Server(args.bench, "--serve")
    for name in args.models.split(","):
        for weights in args.weights.split(","):
            own = weights + "-packed" * args.packed
            theirs = PEERS[args.peer](name, weights, args.work, args.threads)
            precision = args.prefill or ("f32" if weights == "f32" else "bf16")
            prompt = "prefill" if precision == "f32" else "prefill-bf16"
            # The first call of a size allocates memory from the operating system.
            theirs.decode(4), theirs.prefill(512)
            ours.ask(name, own, "decode", 4), ours.ask(name, own, prompt, 512)
            for what, tokens, run in [("decode", args.tokens, theirs.decode), (prompt, 512, theirs.prefill)]:
                times = []
                for _ in range(args.rounds):
                    times.append((ours.ask(name, own, what, tokens), run(tokens)))
                    time.sleep(0.02)  # OpenMP's threads spin for a while
                rates = [1 / statistics.median(t) for t in zip(*times)]
                ratio = statistics.median(b / a for a, b in times)
                line = f"loquat {rates[0]:7.1f} tokens/s; {args.peer} {rates[1]:7.1f} ({ratio:.2f}x)"
                print(f"{name} {own} {what:>12}: {line}", flush=True)
            del theirs


main()
