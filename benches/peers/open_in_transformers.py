#!/usr/bin/env python3
"""Opens a folder of `train_gpt --arch gpt` in `transformers` and compares its greedy text with ours.

    python benches/peers/open_in_transformers.py DIR PROMPT [path of the generate binary]

Needs torch, transformers, tokenizers.
"""
import json
import subprocess
import sys

import torch
from transformers import GPT2LMHeadModel

folder, prompt = sys.argv[1:3]
binary = sys.argv[3] if len(sys.argv) > 3 else "target/release/examples/generate"
command = [binary, "--model", folder, "--prompt", prompt, "--greedy", "--max-new-tokens", "50", "--json"]
ours = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
model = GPT2LMHeadModel.from_pretrained(folder).eval()
with torch.no_grad():
    out = model.generate(
        torch.tensor([ours["prompt_ids"]]), max_new_tokens=50, do_sample=False, eos_token_id=None, pad_token_id=0
    )
theirs = out[0, len(ours["prompt_ids"]) :].tolist()
print("ours  ", ours["ids"])
print("theirs", theirs)
print("same 50 tokens" if ours["ids"] == theirs else "DIFFERENT")
sys.exit(ours["ids"] != theirs)
