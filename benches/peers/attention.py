"""PyTorch's `scaled_dot_product_attention` against benches/attention.rs, alternating case by case;
8 heads of 64, causal.

    python attention.py --bench PATH [--threads N] [--rounds N]

A ratio is theirs ÷ ours in time, so above 1 ours is faster.
"""

import argparse
import statistics
import time

from server import Server, seconds


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bench", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()

    import torch
    import torch.nn.functional as F

    torch.set_num_threads(args.threads)
    ours = Server(args.bench, "--serve")
    for length in [128, 1024, 4096]:
        q, k, v = (torch.randn(1, length, 8, 64).transpose(1, 2).requires_grad_() for _ in range(3))
        dout = torch.randn(1, length, 8, 64).transpose(1, 2)
        one = torch.randn(1, 8, 1, 64)

        def forward():
            with torch.no_grad():
                F.scaled_dot_product_attention(q, k, v, is_causal=True)

        def both():
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            torch.autograd.grad(out, (q, k, v), dout)

        def one_query():
            with torch.no_grad():
                F.scaled_dot_product_attention(one, k, v)

        scores = 512 * length * (length + 1) / 2
        limit = 1e-9 / ours.ask("limit_fma")
        cases = [("forward", forward, 4 * scores), ("both", both, 14 * scores), ("one", one_query, 4 * 512 * length)]
        for name, f, flops in cases:
            times = []
            for _ in range(args.rounds):
                times.append((ours.ask(name, length), seconds(f)))
                time.sleep(0.02)  # OpenMP's threads spin for a while
            mine, theirs = (statistics.median(x) for x in zip(*times))
            ratio = statistics.median(t / o for o, t in times)
            share = 100 * flops / mine / 1e9 / limit
            line = f"{name:>8} {length:>5}: loquat {mine * 1e3:8.3f} ms ({flops / mine / 1e9:.0f} GFLOP/s, {share:.0f} %)"
            print(f"{line}, PyTorch {theirs * 1e3:8.3f} ms, {ratio:.2f}x", flush=True)


main()
