"""Prepares a corpus: one sentence per line, lower case, letters only. Usage: wordvec_corpus.py
RAW.txt OUT.txt"""
import re, sys

words = 0
with open(sys.argv[2], "w", encoding="utf8") as out:
    for line in open(sys.argv[1], encoding="utf8", errors="replace"):
        for sentence in re.split(r"(?<=[.!?])\s+", line.strip().lower()):
            tokens = re.findall(r"[^\W\d_]+", sentence)
            if tokens:
                out.write(" ".join(tokens) + "\n")
                words += len(tokens)
print(words, "words")
