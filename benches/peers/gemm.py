"""Matrix products of PyTorch and of Rust crates against benches/gemm.rs, alternating shape by
shape.

    python gemm.py --bench PATH [--rust PATH] [--threads N] [--rounds N] [--kinds f32,bf16,int8,…]
                   [--shapes 1x768x3072,…]

`benches/peers/gemm.sh` builds everything and runs this. A ratio is theirs ÷ ours in time, so above
1 ours is faster.
"""

import argparse
import statistics
import time

from server import Server, seconds

SHAPES = (
    "256x256x256,512x512x512,1024x1024x1024,2048x2048x2048,128x768x3072,512x768x768,2048x768x3072,"
    "16x768x3072,1x768x2304,1x768x3072,1x4096x4096,1x16384x16384"
)
CRATES = ["gemm", "faer", "matrixmultiply", "candle"]


def torch_product(torch, kind, layout, m, k, n):
    """PyTorch's closest product: f32 for kinds with f32 inputs and sums, bf16 inputs and outputs
    for bf16."""
    a = torch.randn(m, k) if layout[0] == "N" else torch.randn(k, m).t()
    b = torch.randn(k, n) if layout[1] == "N" else torch.randn(n, k).t()
    if "bf16" in kind:
        a, b = a.bfloat16(), b.bfloat16()
    if kind == "int8":
        a, b = (a * 50).to(torch.int8), (b * 50).to(torch.int8)
        return lambda: torch._int_mm(a, b)
    c = torch.empty(m, n, dtype=a.dtype)
    return lambda: torch.mm(a, b, out=c)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bench", required=True)
    parser.add_argument("--rust")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kinds", default="f32")
    parser.add_argument("--shapes", default=SHAPES)
    args = parser.parse_args()

    import torch

    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    ours = Server(args.bench, "--serve")
    crates = Server(args.rust, str(args.threads)) if args.rust else None

    for kind in args.kinds.split(","):
        for shape in args.shapes.split(","):
            m, k, n = map(int, shape.split("x"))
            if kind == "int8" and m < 17:
                continue
            flops = 2e-9 * m * k * n
            limit = 1e-9 / ours.ask("limit_fma")
            for layout in ["NN", "NT", "TN"] if kind in ("f32", "bf16") else ["NT"]:
                f = torch_product(torch, kind, layout, m, k, n)
                times = {"loquat": [], "PyTorch": []}
                if crates and kind == "f32" and layout != "TN" and n < 16384:
                    times |= {crate: [] for crate in CRATES}
                for _ in range(args.rounds):
                    for name, found in times.items():
                        if name == "loquat":
                            found.append(ours.ask(kind, layout, m, k, n))
                        elif name == "PyTorch":
                            found.append(seconds(f))
                            time.sleep(0.02)  # OpenMP's threads spin for a while
                        else:
                            found.append(crates.ask(name, layout, m, k, n))
                rate = {name: flops / statistics.median(found) for name, found in times.items()}
                line = f"{kind} {layout} {shape:>16}: loquat {rate['loquat']:6.1f} GFLOP/s"
                line += f" ({100 * rate['loquat'] / limit:3.0f} % of {limit:.0f})"
                if m <= 16:
                    line += f", B at {rate['loquat'] * (1 if 'packed-bf16' in kind else 2) / m:.1f} GB/s"
                for name, found in list(times.items())[1:]:
                    ratio = statistics.median(t / o for t, o in zip(found, times["loquat"]))
                    line += f"; {name} {rate[name]:.1f} ({ratio:.2f}x)"
                print(line, flush=True)


main()
