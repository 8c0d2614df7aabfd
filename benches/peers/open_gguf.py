"""Opens a .gguf file that loquat wrote with other programs, and compares it with the folder that it
was made from.

    cargo run --release --example to_gguf -- --model DIR --output /tmp/m/model.gguf --format f32
    python benches/peers/open_gguf.py DIR /tmp/m/model.gguf

The `gguf` package reads every key and tensor; `transformers` builds the model and the tokenizer
from the file. Prints the largest difference of the logits and whether ids and greedy tokens agree.
With llama-cpp-python installed, its greedy tokens too.
"""

import os
import sys

import gguf
import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

folder, path = sys.argv[1:3]
reader = gguf.GGUFReader(path)
for tensor in reader.tensors:
    x = gguf.dequantize(tensor.data, tensor.tensor_type)
    assert np.isfinite(x).all(), tensor.name
for key, field in reader.fields.items():
    print(f"{key:44} {str(field.contents())[:70]}")
where = dict(gguf_file=os.path.basename(path))
a = AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32).eval()
b = AutoModelForCausalLM.from_pretrained(os.path.dirname(path), torch_dtype=torch.float32, **where).eval()
text = "Once upon a time, Größe 123 \U0001F600\n  there"
ta = AutoTokenizer.from_pretrained(folder)
ids = ta(text)["input_ids"]
try:
    tb = AutoTokenizer.from_pretrained(os.path.dirname(path), **where)
    print("ids agree:", tb(text)["input_ids"] == ids)
except Exception as error:  # not every kind of vocabulary
    print("tokenizer:", error)
x = torch.tensor([ids])
with torch.no_grad():
    ya, yb = a(x).logits, b(x).logits
    print("largest difference of logits:", (ya - yb).abs().max().item(), "of", ya.abs().max().item())
    ga, gb = (m.generate(x, do_sample=False, max_new_tokens=40, pad_token_id=0) for m in (a, b))
    print("greedy tokens agree:", ga.tolist() == gb.tolist())
try:
    import llama_cpp
except ImportError:
    sys.exit()
llm = llama_cpp.Llama(path, n_ctx=256, logits_all=False, verbose=False)
print("llama.cpp, ids agree:", llm.tokenize(text.encode(), add_bos=True) == ids)
llm.eval(ids)
out = []
for _ in range(40):
    out.append(int(np.argmax(llm._scores[-1] if len(llm._scores) else llm.scores[llm.n_tokens - 1])))
    llm.eval(out[-1:])
print("llama.cpp, greedy tokens agree:", out == ga[0, len(ids):].tolist())
