"""PyTorch beside benches/encode.rs, in turns: all-MiniLM-L6-v2, token ids to normalised means, no padding.

    python encode.py --bench PATH --model DIR [--threads N] [--rounds N]

A ratio is theirs / ours in time, so above 1 ours is faster. LOQUAT_MINILM=DIR gives ours the same weights.
"""

import argparse
import os
import statistics
import time

from server import Server


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bench", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()

    import torch
    from transformers import AutoModel

    torch.set_num_threads(args.threads)
    os.environ["LOQUAT_MINILM"] = args.model
    ours = Server(args.bench, "--serve")
    models = {
        "f32": AutoModel.from_pretrained(args.model, dtype=torch.float32).eval(),
        "bf16": AutoModel.from_pretrained(args.model, dtype=torch.bfloat16).eval(),
    }

    def theirs(precision, texts, length):
        ids = torch.randint(1000, 29000, (texts, length))
        start = time.perf_counter()
        with torch.inference_mode():
            for batch in ids.split(32):
                mean = models[precision](input_ids=batch).last_hidden_state.mean(1)
                torch.nn.functional.normalize(mean)
        return time.perf_counter() - start

    for texts, length in [(512, 32), (64, 256)]:
        for precision in ["f32", "bf16"]:
            ours.ask(precision, texts // 8, length), theirs(precision, texts // 8, length)  # warm
            times = []
            for _ in range(args.rounds):
                times.append((ours.ask(precision, texts, length), theirs(precision, texts, length)))
                time.sleep(0.05)  # OpenMP's threads spin for a while
            mine, other = (texts / statistics.median(x) for x in zip(*times))
            ratio = statistics.median(t / o for o, t in times)
            what = f"{precision} {texts} x {length}"
            print(f"{what:>14}: loquat {mine:6.1f}, PyTorch {other:6.1f} sentences/s, {ratio:.2f}x", flush=True)


main()
