"""A training step in PyTorch eager against benches/train_step.rs, alternating; bf16 is PyTorch's
autocast.

    cargo bench -p loquat-benches --bench train_step --no-run   # prints the path of the binary
    python benches/peers/train_step.py --bench PATH [--threads N] [--rounds N]
                                       [--recipes cpu,small] [--precisions f32,bf16] [--candle PATH]

A ratio is theirs ÷ ours in time, so above 1 ours is faster. Needs torch. `--candle`: the path of
benches/peers/rust's `train_step`, which is compared in f32.
"""

import argparse
import contextlib
import statistics
import time
import types

import torch
import torch.nn as nn
import torch.nn.functional as F
from server import Server, seconds
from train_lm import Gpt

RECIPES = {  # layers, heads, dim, context, batch, dropout: as in benches/train_step.rs
    "cpu": (4, 4, 128, 64, 12, 0.0),
    "small": (6, 6, 384, 256, 12, 0.0),
    "gpu": (6, 6, 384, 256, 64, 0.2),
}
VOCABULARY = 65


def peer(recipe, precision):
    layers, heads, dim, context, batch, dropout = RECIPES[recipe]
    a = types.SimpleNamespace(layers=layers, heads=heads, dim=dim, context=context, dropout=dropout)
    torch.manual_seed(1)
    model = Gpt(VOCABULARY, a)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1)
    x, y = (torch.randint(0, VOCABULARY, (batch, context)) for _ in range(2))
    cast = torch.autocast("cpu", dtype=torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()

    def step():
        with cast:
            loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step, batch * context


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--bench", required=True)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--recipes", default="cpu,small")
    p.add_argument("--precisions", default="f32,bf16")
    p.add_argument("--candle")
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    ours = Server(args.bench, "--serve")
    candle = args.candle and Server(args.candle)
    for recipe in args.recipes.split(","):
        flops = ours.ask("flops", recipe)
        for precision in args.precisions.split(","):
            step, tokens = peer(recipe, precision)
            limit = 1e-9 / ours.ask("limit_fma")
            times = []
            for _ in range(args.rounds):
                times.append((ours.ask(recipe, precision), seconds(step, 0.5)))
                time.sleep(0.05)
            mine, theirs = (statistics.median(x) for x in zip(*times))
            ratio = statistics.median(t / o for o, t in times)
            share = 100 * flops / mine / 1e9 / limit
            line = f"{recipe:>6} {precision:>4}: loquat {mine * 1e3:7.1f} ms, {tokens / mine:.0f} tokens/s ({share:.0f} % of f32's limit)"
            if candle and precision == "f32":
                pairs = [(ours.ask(recipe, precision), candle.ask(recipe)) for _ in range(args.rounds)]
                ratio_candle = statistics.median(t / o for o, t in pairs)
                line += f"; candle {statistics.median(t for _, t in pairs) * 1e3:7.1f} ms, {ratio_candle:.2f}x"
            print(f"{line}; PyTorch {theirs * 1e3:7.1f} ms, {tokens / theirs:.0f} tokens/s; {ratio:.2f}x", flush=True)


main()
