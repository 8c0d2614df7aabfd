#!/usr/bin/env python3
"""The language models of `train_gpt` in PyTorch eager: same shapes, initial distributions,
optimiser and schedule.

    python benches/peers/train_lm.py --text FILE [--arch gpt|rnn|lstm|gru|mlp]
        [--tokenizer char|FILE] [--val FILE] [--layers 4 --heads 4 --dim 128 --context 64
        --batch 12 --steps 2000 --lr 1e-3 --dropout 0 --seed 1 --threads 2]

Prints the validation loss over the whole held-out text, tokens per second without the evaluation,
and the growth of resident memory since the imports. Needs torch, numpy, and tokenizers for a
tokenizer file.
"""
import argparse
import math
import resource
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


class Block(nn.Module):
    def __init__(self, dim, heads, layers, dropout):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.ln_1, self.ln_2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.c_attn, self.c_proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.c_fc, self.c_out = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        for linear in (self.c_attn, self.c_fc):
            nn.init.normal_(linear.weight, std=0.02)
        for linear in (self.c_proj, self.c_out):
            nn.init.normal_(linear.weight, std=0.02 / math.sqrt(2 * layers))
        for linear in (self.c_attn, self.c_proj, self.c_fc, self.c_out):
            nn.init.zeros_(linear.bias)

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = (y.view(b, t, self.heads, -1).transpose(1, 2) for y in self.c_attn(self.ln_1(x)).split(c, 2))
        p = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=p)
        x = x + F.dropout(self.c_proj(y.transpose(1, 2).reshape(b, t, c)), self.dropout, self.training)
        y = self.c_out(F.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))
        return x + F.dropout(y, self.dropout, self.training)


class Gpt(nn.Module):
    def __init__(self, vocab, a):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocab, a.dim), nn.Embedding(a.context, a.dim)
        nn.init.normal_(self.wte.weight, std=0.02)
        nn.init.normal_(self.wpe.weight, std=0.02)
        self.h = nn.ModuleList(Block(a.dim, a.heads, a.layers, a.dropout) for _ in range(a.layers))
        self.ln_f, self.drop = nn.LayerNorm(a.dim), nn.Dropout(a.dropout)

    def forward(self, ids):
        x = self.drop(self.wte(ids) + self.wpe.weight[: ids.shape[1]])
        for block in self.h:
            x = block(x)
        return self.ln_f(x) @ self.wte.weight.T


class Recurrent(nn.Module):
    def __init__(self, vocab, a):
        super().__init__()
        self.embedding = nn.Embedding(vocab, a.dim)
        cell = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[a.arch]
        between = a.dropout if a.layers > 1 else 0.0
        self.rnn = cell(a.dim, a.dim, a.layers, batch_first=True, dropout=between)
        self.drop, self.head = nn.Dropout(a.dropout), nn.Linear(a.dim, vocab)

    def forward(self, ids):
        return self.head(self.drop(self.rnn(self.drop(self.embedding(ids)))[0]))


class Mlp(nn.Module):
    WINDOW = 8

    def __init__(self, vocab, a):
        super().__init__()
        self.embedding = nn.Embedding(vocab, a.dim)
        self.hidden, self.head = nn.Linear(self.WINDOW * a.dim, 4 * a.dim), nn.Linear(4 * a.dim, vocab)
        self.drop = nn.Dropout(a.dropout)

    def forward(self, ids):
        x = F.pad(self.drop(self.embedding(ids)), (0, 0, self.WINDOW - 1, 0))
        x = torch.cat([x[:, i : i + ids.shape[1]] for i in range(self.WINDOW)], dim=2)
        return self.head(self.drop(torch.tanh(self.hidden(x))))


def lr_at(step, a):
    """Linear warm-up, then a cosine to a tenth."""
    if step < a.warmup:
        return a.lr * (step + 1) / (a.warmup + 1)
    share = (step - a.warmup) / max(1, a.steps - a.warmup)
    return 0.1 * a.lr + 0.45 * a.lr * (1 + math.cos(math.pi * min(1.0, share)))


def resident():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * 4096


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--text", required=True)
    p.add_argument("--val")
    p.add_argument("--arch", default="gpt")
    p.add_argument("--tokenizer", default="char")
    for name, default in dict(layers=4, heads=4, dim=128, context=64, batch=12, steps=2000, seed=1, threads=2, warmup=100).items():
        p.add_argument(f"--{name}", type=int, default=default)
    p.add_argument("--lr", type=float, default=1e-3)
    p.add_argument("--dropout", type=float, default=0.0)
    p.add_argument("--weight-decay", type=float, default=0.1)
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    rng = np.random.default_rng(a.seed)

    text = open(a.text, encoding="utf-8").read()
    if a.tokenizer == "char":
        chars = sorted(set(text))
        index = {c: i for i, c in enumerate(chars)}
        vocab, encode = len(chars), lambda s: np.array([index[c] for c in s], dtype=np.int64)
    else:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(a.tokenizer)
        vocab = tokenizer.get_vocab_size()
        encode = lambda s: np.array(tokenizer.encode(s, add_special_tokens=False).ids, dtype=np.int64)
    if a.val:
        train, val = encode(text), encode(open(a.val, encoding="utf-8").read())
    else:
        cut = int(0.9 * len(text))
        train, val = encode(text[:cut]), encode(text[cut:])

    before = resident()
    model = {"gpt": Gpt, "mlp": Mlp}.get(a.arch, Recurrent)(vocab, a)
    decay = [q for q in model.parameters() if q.dim() >= 2]
    rest = [q for q in model.parameters() if q.dim() < 2]
    groups = [{"params": decay, "weight_decay": a.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=a.lr, betas=(0.9, 0.99))

    times, loss = [], None
    for step in range(a.steps):
        start = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = lr_at(step, a)
        at = rng.integers(0, len(train) - a.context, a.batch)
        x = torch.from_numpy(np.stack([train[i : i + a.context] for i in at]))
        y = torch.from_numpy(np.stack([train[i + 1 : i + 1 + a.context] for i in at]))
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        times.append(time.perf_counter() - start)
        if step % 250 == 0:
            print(f"step {step} loss {loss.item():.4f}", flush=True)

    model.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        windows = (len(val) - 1) // a.context
        for first in range(0, windows, 64):
            n = min(64, windows - first)
            span = torch.from_numpy(val[first * a.context : (first + n) * a.context + 1])
            x, y = span[:-1].view(n, a.context), span[1:].view(n, a.context)
            total += F.cross_entropy(model(x).flatten(0, 1), y.flatten(), reduction="sum").item()
            count += y.numel()
    seconds = float(np.median(times))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"parameters {sum(q.numel() for q in model.parameters())} vocab {vocab}")
    print(f"val_loss {total / count:.4f} train_loss {loss.item():.4f}")
    print(f"ms_per_step {1000 * seconds:.2f} tokens_per_second {a.batch * a.context / seconds:.0f}")
    print(f"resident_growth_mb {(peak - before) / 2**20:.0f}")


if __name__ == "__main__":
    main()
