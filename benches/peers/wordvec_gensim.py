"""gensim: one whole run. Usage: wordvec_gensim.py CORPUS sg|cbow DIM THREADS EPOCHS SEED OUT

Window 5, negative 5, min_count 5, sample 1e-3. Prints the seconds of vocabulary, training and saving,
and the peak memory."""
import resource, sys, time
from gensim.models import Word2Vec
import gensim.models.word2vec as inner

path, arch, dim, threads, epochs, seed, out = sys.argv[1:8]
assert inner.FAST_VERSION >= 0, "gensim without its compiled loops is no peer"
t0 = time.perf_counter()
model = Word2Vec(corpus_file=path, vector_size=int(dim), window=5, min_count=5, workers=int(threads), sg=int(arch == "sg"),
                 negative=5, sample=1e-3, epochs=int(epochs), seed=int(seed))
model.wv.save_word2vec_format(out, binary=True)
wall, cpu = time.perf_counter() - t0, time.process_time()
rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
print(f"gensim-{arch},dim={dim},threads={threads},epochs={epochs},wall_s,{wall:.3f},cpu_s,{cpu:.3f},rss_mb,{rss}", flush=True)
