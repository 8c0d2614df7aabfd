"""fastText: one whole run. Usage: wordvec_fasttext.py CORPUS skipgram|cbow DIM THREADS EPOCHS
SUBWORDS(0|1) OUT window 5, negative 5, min_count 5, t 1e-3, n-grams of 3 to 6 characters, 2 million
buckets."""
import resource, sys, time
import fasttext

path, arch, dim, threads, epochs, subwords, out = sys.argv[1:8]
ngrams = {} if subwords == "1" else dict(minn=0, maxn=0)
t0 = time.perf_counter()
model = fasttext.train_unsupervised(path, model=arch, dim=int(dim), ws=5, neg=5, minCount=5, epoch=int(epochs),
                                    thread=int(threads), t=1e-3, verbose=0, **ngrams)
wall, cpu = time.perf_counter() - t0, time.process_time()
if out != "-":
    with open(out, "w", encoding="utf8") as f:
        f.write(f"{len(model.words)} {model.get_dimension()}\n")
        for w in model.words:
            f.write(w + " " + " ".join(f"{x:.5g}" for x in model.get_word_vector(w)) + "\n")
rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
print(f"fasttext-{arch},subwords={subwords},dim={dim},threads={threads},epochs={epochs},wall_s,{wall:.3f},cpu_s,{cpu:.3f},rss_mb,{rss}", flush=True)
