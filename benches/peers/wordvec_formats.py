"""Files of word vectors in both directions: gensim and fastText write, loquat reads and writes
every format, gensim and NumPy read.

    cargo build --release --example convert_vectors
    python benches/peers/wordvec_formats.py CORPUS [path of the convert_vectors binary]

Trains small models on the corpus's first lines. Prints each pair of formats with the largest
difference, which must be 0 except for fastText (1e-6): its `.vec` has five digits, and its `.bin`
has the rows of a word and its n-grams, whose mean may be rounded differently.
"""

import itertools
import pathlib
import subprocess
import sys
import tempfile

import fasttext
import numpy as np
from gensim.models import FastText, KeyedVectors, Word2Vec
from gensim.models.fasttext import save_facebook_model

binary = sys.argv[2] if len(sys.argv) > 2 else "target/release/examples/convert_vectors"
folder = pathlib.Path(tempfile.mkdtemp())
lines = [line for line in itertools.islice(open(sys.argv[1], encoding="utf8"), 20_000)]
text = folder / "corpus"
# Words that are difficult for formats: characters beyond ASCII, and no letters at all.
text.write_text("".join(lines) + "naïve façade 北京 ½ -- 3.14 naïve 北京\n" * 20, encoding="utf8")

theirs = {}
model = Word2Vec([line.split() for line in open(text, encoding="utf8")], vector_size=37, workers=2, epochs=1, seed=1)
for name, options in [("gensim.txt", {}), ("gensim.bin", {"binary": True})]:
    model.wv.save_word2vec_format(folder / name, **options)
    theirs[name] = (model.wv.index_to_key, model.wv.vectors)
model.wv.save_word2vec_format(folder / "gensim.glove", write_header=False)
theirs["gensim.glove"] = theirs["gensim.txt"]
for subwords in [0, 1]:
    ngrams = dict(minn=3, maxn=5) if subwords else dict(maxn=0)
    model = fasttext.train_unsupervised(str(text), dim=20, epoch=1, bucket=1000 * subwords, thread=2, verbose=0, **ngrams)
    words, name = model.words, f"fasttext{subwords}"
    vectors = np.stack([model.get_word_vector(word) for word in words])
    model.save_model(str(folder / f"{name}-model.bin"))
    theirs[f"{name}-model.bin"] = (words, vectors)
    with open(folder / f"{name}.vec", "w", encoding="utf8") as out:
        out.write(f"{len(words)} {model.get_dimension()}\n")
        out.writelines(f"{word} {' '.join(f'{x:.5g}' for x in row)} \n" for word, row in zip(words, vectors))
    printed = np.array([[float(f"{x:.5g}") for x in row] for row in vectors], dtype=np.float32)
    theirs[f"{name}.vec"] = (words, printed)
model = FastText([line.split() for line in open(text, encoding="utf8")], vector_size=20, epochs=1, bucket=1000, workers=2)
save_facebook_model(model, str(folder / "gensim-model.bin"))
theirs["gensim-model.bin"] = (model.wv.index_to_key, model.wv.vectors)

failed = False
for source, (words, vectors) in theirs.items():
    for target in ["ours.txt", "ours.bin", "ours.vec", "ours.glove", "ours.npy"]:
        out = folder / target
        subprocess.run([binary, folder / source, out], check=True, capture_output=True)
        if target == "ours.npy":
            ours_words, ours = (folder / "ours.words.txt").read_text(encoding="utf8").splitlines(), np.load(out)
        else:
            opened = KeyedVectors.load_word2vec_format(out, binary=target == "ours.bin", no_header=target == "ours.glove")
            ours_words, ours = opened.index_to_key, opened.vectors
        difference = float(np.abs(ours - vectors).max()) if ours_words == list(words) else float("nan")
        good = difference <= (1e-6 if source.endswith("model.bin") else 0)
        failed |= not good
        print(f"{source:>20} -> {target:<10} {len(words)} words, largest difference {difference:.1e}", "" if good else "WRONG")
sys.exit(failed)
