"""Scores vectors with gensim, independently of ours. Usage: wordvec_evaluate.py WORD_EVAL_FOLDER
FILE…  (.txt: text, else binary) Prints Spearman x 100 on WordSim-353, SimLex-999 and MEN, and the
accuracy on the Google analogies in percent."""
import sys, tempfile
from gensim.models import KeyedVectors

folder = sys.argv[1]
for file in sys.argv[2:]:
    vectors = KeyedVectors.load_word2vec_format(file, binary=not file.endswith(".txt"))
    scores = []
    for name in ["EN-WS-353-ALL", "EN-SIMLEX-999", "EN-MEN-TR-3k"]:
        with tempfile.NamedTemporaryFile("w", suffix=".tsv") as pairs:
            for line in open(f"{folder}/{name}.txt"):
                fields = line.split()
                if len(fields) == 3:
                    pairs.write("\t".join(fields) + "\n")
            pairs.flush()
            _, spearman, _ = vectors.evaluate_word_pairs(pairs.name)
        scores.append(100 * spearman.statistic)
    accuracy, _ = vectors.evaluate_word_analogies(f"{folder}/questions-words.txt")
    print(f"{file},ws353,{scores[0]:.2f},simlex,{scores[1]:.2f},men,{scores[2]:.2f},analogies,{100 * accuracy:.2f}", flush=True)
