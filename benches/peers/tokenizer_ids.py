"""Token ids of some 10 MB of mixed text by the reference tokenizers, for
`cargo test --release --test tokenizer_ids`.

    python benches/peers/tokenizer_ids.py ../shared/data /tmp/ids
    LOQUAT_IDS=/tmp/ids cargo test --release --test tokenizer_ids -- --nocapture

Text: novels, several languages, source code, and random characters of every script, emoji, control
and private characters, white space of every kind, special tokens. `texts.jsonl` has one JSON string
per line; the file of each tokenizer one line of ids per text, without added special tokens.
References: Hugging Face `tokenizers`, and `sentencepiece` if it is installed.
"""

import json
import lzma
import os
import random
import sys
import unicodedata

from tokenizers import BertWordPieceTokenizer, Tokenizer

data, out = sys.argv[1:3]
os.makedirs(out, exist_ok=True)
rng = random.Random(7)
MB = int(os.environ.get("MB", "10"))


def chunks(text, low=200, high=4000):
    at = 0
    while at < len(text):
        n = rng.randint(low, high)
        yield text[at : at + n]
        at += n


def read(path, limit):
    with open(os.path.join(data, path), encoding="utf-8", errors="ignore", newline="") as file:
        return file.read(limit)


texts = []
novels = lzma.open(os.path.join(data, "lm/english_novels.txt.xz"), "rt", encoding="utf-8", newline="").read(3 * MB << 17)
texts += chunks(novels)
for root, _, names in os.walk(os.path.join(data, "mt")):
    for name in sorted(names):
        if not name.endswith((".gz", ".xz", ".md")):
            texts += chunks(read(os.path.join(root, name), MB << 14))
for name in sorted(os.listdir(os.path.join(data, "qa"))):
    if name.endswith(".json"):
        texts += chunks(read("qa/" + name, MB << 15))
code = []
for root in (os.path.dirname(json.__file__), os.path.dirname(unicodedata.__file__ if hasattr(unicodedata, "__file__") else os.__file__)):
    for folder, _, names in os.walk(root):
        code += [os.path.join(folder, n) for n in sorted(names) if n.endswith((".py", ".h", ".c"))]
size = 0
for path in code:
    text = open(path, encoding="utf-8", errors="ignore", newline="").read(1 << 16)
    texts += chunks(text)
    size += len(text)
    if size > MB << 17:
        break
assigned = [chr(c) for c in range(0x110000) if unicodedata.category(chr(c)) not in ("Cs",)]
letters = [c for c in assigned if c.isalpha()]
spaces = [c for c in assigned if c.isspace()] + ["\u200b", "\u200d", "\ufeff", "\u2581"]
emoji = [chr(c) for c in (*range(0x1F300, 0x1FAFF), *range(0x2600, 0x27C0))] + ["\ufe0f", "\u200d", "\U0001F3FD", "\U0001F1E9"]
controls = [chr(c) for c in (*range(0, 32), *range(127, 160), 0x202E, 0x2066, 0xFFFE, 0xE000, 0x10FFFF)]
special = ["<s>", "</s>", "<unk>", "<|endoftext|>", "[CLS]", "[SEP]", "[MASK]", "<0x41>", "##ing", "'s", "'LL"]
latin = [chr(c) for c in (*range(32, 127), *range(0xA0, 0x250), *range(0x300, 0x370))]
size = 0
while size < MB * 450_000:
    pool = rng.choice([letters, spaces + latin, emoji + latin, controls + latin, latin, assigned, list(" aeiou\n\t0123456789'")])
    parts = [rng.choice(pool) for _ in range(rng.randint(1, 300))]
    if rng.random() < 0.3:
        parts.insert(rng.randrange(len(parts)), rng.choice(special))
    text = "".join(parts)
    texts.append(text)
    size += len(text.encode())
print(len(texts), "texts,", sum(len(t.encode()) for t in texts), "bytes")
with open(os.path.join(out, "texts.jsonl"), "w", encoding="utf-8") as file:
    file.writelines(json.dumps(t) + "\n" for t in texts)


def hf(path):
    """Older files write a merge as one string; if a token contains a space, it is split into two
    known tokens."""
    with open(os.path.join(data, path), encoding="utf-8") as file:
        whole = json.load(file)
    vocab, merges = whole["model"]["vocab"], whole["model"].get("merges")
    for i, merge in enumerate(merges or []):
        if isinstance(merge, str):
            cuts = [(merge[:j], merge[j + 1 :]) for j, c in enumerate(merge) if c == " "]
            merges[i] = next(list(cut) for cut in cuts if len(cuts) == 1 or all(part in vocab for part in cut))
    return Tokenizer.from_str(json.dumps(whole))


def bert(path, lower):
    return BertWordPieceTokenizer(os.path.join(data, path), lowercase=lower)._tokenizer


def put(name, path, encode):
    with open(os.path.join(out, name + ".ids"), "w") as file:
        file.write(path + "\n")
        for ids in encode(texts):
            file.write(" ".join(map(str, ids)) + "\n")


def by_hf(tokenizer):
    tokenizer.no_truncation(), tokenizer.no_padding()
    return lambda texts: [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]


gpt2 = by_hf(hf("tokenizers/gpt2/tokenizer.json"))
llama = by_hf(hf("tokenizers/llama2/tokenizer.json"))
uncased = by_hf(bert("tokenizers/bert-base-uncased/vocab.txt", True))
put("gpt2", "tokenizers/gpt2/tokenizer.json", gpt2)
put("gpt2-gguf", "tokenizers/ggml/ggml-vocab-gpt-2.gguf", gpt2)
put("llama2", "tokenizers/llama2/tokenizer.json", llama)
put("llama2-gguf", "tokenizers/ggml/ggml-vocab-llama-spm.gguf", llama)
put("bert-uncased", "tokenizers/bert-base-uncased", uncased)
put("bert-gguf", "tokenizers/ggml/ggml-vocab-bert-bge.gguf", uncased)
put("t5", "tokenizers/t5-small/tokenizer.json", by_hf(hf("tokenizers/t5-small/tokenizer.json")))
put("minilm", "models/all-MiniLM-L6-v2/tokenizer.json", by_hf(hf("models/all-MiniLM-L6-v2/tokenizer.json")))
try:
    import sentencepiece
except ImportError:
    sys.exit()
spm = sentencepiece.SentencePieceProcessor(model_file=os.path.join(data, "tokenizers/llama2/tokenizer.model"))
put("llama2-gguf-sentencepiece", "tokenizers/ggml/ggml-vocab-llama-spm.gguf", lambda texts: [spm.encode(t) for t in texts])
