"""Decoding and reading a prompt with transformers beside benches/decode.rs, alternating; random weights of public models' sizes.

    python decode.py --bench PATH [--threads N] [--rounds N] [--models gpt2-124m,…] [--weights f32,bf16] [--tokens N]

`benches/peers/gemm.sh PYTHON decode [options]` builds the bench and runs this. A ratio is theirs ÷ ours in time, so above 1 ours is
faster. transformers has no fast path for f16 on a processor: our f16 is compared with its bf16.
"""

import argparse
import statistics
import time

from server import Server

PROMPT = 32


def build(name, dtype):
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    if name == "gpt2-124m":
        model = GPT2LMHeadModel(GPT2Config())
    else:
        width, layers, inner, heads = {"llama-110m": (768, 12, 2048, 12), "llama-1b": (2048, 22, 5632, 32)}[name]
        torch.set_default_dtype(dtype)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=32000,
                hidden_size=width,
                intermediate_size=inner,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                num_key_value_heads=4,
                max_position_embeddings=2048,
                tie_word_embeddings=False,
            )
        )
        torch.set_default_dtype(torch.float32)
    return model.to(dtype).eval()


def decode(torch, model, tokens):
    ids = torch.tensor([[5 + 17 * i for i in range(PROMPT)]])
    out = model(ids, use_cache=True, logits_to_keep=1)
    ids = out.logits[:, -1:].argmax(-1)
    start = time.perf_counter()
    for _ in range(tokens):
        out = model(ids, past_key_values=out.past_key_values, use_cache=True, logits_to_keep=1)
        ids = out.logits[:, -1:].argmax(-1)
    return (time.perf_counter() - start) / tokens


def prefill(torch, model, tokens):
    ids = torch.tensor([[5 + 17 * i % 31000 for i in range(tokens)]])
    start = time.perf_counter()
    model(ids, use_cache=True, logits_to_keep=1).logits.argmax(-1)
    return (time.perf_counter() - start) / tokens


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bench", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", default="gpt2-124m,llama-110m")
    parser.add_argument("--weights", default="f32,bf16")
    parser.add_argument("--tokens", type=int, default=128)
    args = parser.parse_args()

    import torch

    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    ours = Server(args.bench, "--serve")
    for name in args.models.split(","):
        for weights in args.weights.split(","):
            model = build(name, torch.float32 if weights == "f32" else torch.bfloat16)
            prompt = "prefill" if weights == "f32" else "prefill-bf16"
            # The first call of a size asks the system for memory.
            decode(torch, model, 4), prefill(torch, model, 512)
            ours.ask(name, weights, "decode", 4), ours.ask(name, weights, prompt, 512)
            for what, tokens, theirs in [("decode", args.tokens, decode), (prompt, 512, prefill)]:
                times = []
                for _ in range(args.rounds):
                    times.append((ours.ask(name, weights, what, tokens), theirs(torch, model, tokens)))
                    time.sleep(0.02)  # OpenMP's threads spin for a while
                rates = [1 / statistics.median(t) for t in zip(*times)]
                ratio = statistics.median(b / a for a, b in times)
                line = f"{name} {weights} {what:>12}: loquat {rates[0]:7.1f} tokens/s; transformers {rates[1]:7.1f} ({ratio:.2f}x)"
                print(line, flush=True)
            del model


main()
