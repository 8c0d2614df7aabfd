use super::*;
use crate::text::Corpus;

/// Sentences in which words of one group occur together and words of different groups do not.
fn stories() -> TrainingText<'static> {
    TrainingText::sentences(|| {
        (0..3000usize).map(|i| {
            let group = i * 7919 % 6;
            let word = |k: usize| format!("{}{}", ["cat", "dog", "car", "sun", "sea", "tea"][group], k);
            (0..8).map(|k| if k % 4 == 3 { "the".into() } else { word((i / 6 + k * k) % 4) }).collect()
        })
    })
}

fn small(config: Word2Vec) -> Word2Vec {
    config.dim(16).epochs(4).min_count(1).seed(3)
}

/// The fraction of words whose nearest neighbour is of the same group.
fn grouped(v: &WordVectors) -> f64 {
    let words: Vec<&str> = v.words().filter(|w| *w != "the").collect();
    let same = words.iter().filter(|w| v.most_similar(&[w], &["the"], 1).unwrap()[0].0[..3] == w[..3]).count();
    same as f64 / words.len() as f64
}

#[test]
fn every_variant_learns_the_groups() {
    let ngrams = Ngrams { min_n: 2, max_n: 3, buckets: 500 };
    for (name, config) in [
        ("skip-gram", Word2Vec::skip_gram()),
        ("skip-gram, hierarchical", Word2Vec::skip_gram().hierarchical_softmax()),
        ("cbow", Word2Vec::cbow()),
        ("cbow, sum", Word2Vec::cbow().sum()),
        ("cbow, hierarchical", Word2Vec::cbow().hierarchical_softmax()),
        ("skip-gram, subwords", Word2Vec::skip_gram().subwords(ngrams)),
        ("skip-gram, subwords, hierarchical", Word2Vec::skip_gram().subwords(ngrams).hierarchical_softmax()),
        ("cbow, subwords", Word2Vec::cbow().subwords(ngrams)),
        ("skip-gram, deterministic", Word2Vec::skip_gram().deterministic(true)),
    ] {
        let config = small(config).lr(0.1);
        let model = config.train_model(&stories(), &mut |_: &Progress| ControlFlow::Continue(())).unwrap();
        let losses = model.losses().to_vec();
        assert_eq!(losses.len(), 4, "{name}");
        assert!(losses[3] < losses[0] && losses.iter().all(|l| l.is_finite()), "{name}: {losses:?}");
        let vectors = model.into_vectors();
        assert!(grouped(&vectors) > 0.9, "{name}: {}", grouped(&vectors));
        assert_eq!(vectors.count("the"), Some(6000), "{name}");
        if config.ngrams.is_some() {
            assert!(vectors.vector("catty").is_some(), "{name}");
        }
    }
}

#[test]
fn deterministic_runs_give_the_same_bits_at_any_number_of_threads() {
    for config in [
        Word2Vec::skip_gram(),
        Word2Vec::cbow().hierarchical_softmax(),
        Word2Vec::skip_gram().subwords(Ngrams { min_n: 2, max_n: 3, buckets: 100 }),
    ] {
        let train = |threads| small(config.clone()).deterministic(true).threads(threads).train(&stories()).unwrap();
        let one = train(1);
        for threads in [2, 4] {
            let other = train(threads);
            assert!(one.words().eq(other.words()));
            assert_eq!(one.to_array(), other.to_array(), "{threads} threads");
        }
    }
}

#[test]
fn one_thread_and_one_seed_give_the_same_bits() {
    let train = |seed| small(Word2Vec::skip_gram()).threads(1).seed(seed).train(&stories()).unwrap().to_array();
    assert_eq!(train(1), train(1));
    assert_ne!(train(1), train(2));
}

#[test]
fn a_resumed_run_ends_with_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.safetensors");
    let config = small(Word2Vec::skip_gram()).deterministic(true);
    let wanted = config.train(&stories()).unwrap();
    // A checkpoint after every round; the run is stopped in the middle.
    let checked = config.checkpoint(&path, Duration::ZERO);
    let mut calls = 0;
    let broken = checked
        .train_model(&stories(), &mut |p: &Progress| {
            calls += 1;
            if p.epoch_end && p.epoch == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert!(!broken.is_finished() && calls > 0);
    let mut seen = 0;
    let resumed = Word2VecModel::resume(&path, &stories(), Duration::from_secs(9), &mut |p: &Progress| {
        seen = seen.max(p.words);
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(resumed.is_finished());
    assert_eq!(resumed.losses().len(), 4);
    assert_eq!(seen, 4 * 24_000);
    assert_eq!(resumed.into_vectors().to_array(), wanted.to_array());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    let whole = std::fs::read(&path).unwrap();
    for cut in [0, 7, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..cut]).unwrap();
        assert!(Word2VecModel::load(&path).is_err(), "cut at {cut}");
    }
}

#[test]
fn training_goes_on_with_new_words() {
    let mut model =
        small(Word2Vec::skip_gram()).train_model(&stories(), &mut |_: &Progress| ControlFlow::Continue(())).unwrap();
    let before = model.vectors();
    let more =
        TrainingText::sentences(|| (0..500).map(|_| ["cat1", "lynx", "cat2", "puma"].map(String::from).to_vec()));
    model.train_more(&more, 3, &mut |_: &Progress| ControlFlow::Continue(())).unwrap();
    let after = model.into_vectors();
    assert_eq!(after.len(), before.len() + 2);
    assert!(before.words().eq(after.words().take(before.len())));
    assert!(after.similarity("lynx", "cat1").unwrap() > after.similarity("lynx", "sea1").unwrap());
    assert_eq!(after.vector("sun1").map(|v| v.len()), Some(16));
}

#[test]
fn wrong_settings_and_texts_are_clear_errors() {
    let text = stories();
    for (config, wanted) in [
        (Word2Vec::skip_gram().dim(0), "dim: expected a number above 0, found 0"),
        (Word2Vec::skip_gram().window(0), "window: expected a number above 0, found 0"),
        (Word2Vec::skip_gram().epochs(0), "epochs: expected a number above 0, found 0"),
        (Word2Vec::skip_gram().threads(0), "threads: expected a number above 0, found 0"),
        (Word2Vec::skip_gram().negative_samples(0), "negative_samples: expected a number above 0, found 0"),
        (Word2Vec::skip_gram().negative_samples(25), "negative_samples: expected fewer than the 25 words, found 25"),
        (Word2Vec::skip_gram().lr(f32::NAN), "lr: "),
        (Word2Vec::skip_gram().subsample(-1.0), "subsample: expected a number ≥ 0, found -1"),
        (
            Word2Vec::skip_gram().min_count(1_000_000),
            "expected words that occur at least 1000000 times, found at most 6000",
        ),
        (Word2Vec::skip_gram().dim(usize::MAX / 8), "dim: expected vectors of 25 rows that fit into memory"),
        (
            Word2Vec::skip_gram().subwords(Ngrams { min_n: 4, max_n: 3, buckets: 1 }),
            "subwords: expected 1 ≤ min_n ≤ max_n and at least one bucket, found min_n 4, max_n 3, 1 buckets",
        ),
    ] {
        let e = config.train(&text).unwrap_err().to_string();
        assert!(e.contains(wanted), "{e}\n{wanted}");
    }
    let empty = TrainingText::sentences(std::iter::empty::<Vec<String>>);
    assert!(Word2Vec::skip_gram().train(&empty).unwrap_err().to_string().contains("empty text"));
    let one = TrainingText::sentences(|| std::iter::repeat_n(vec!["word".to_string()], 9));
    for config in [Word2Vec::skip_gram(), Word2Vec::cbow().hierarchical_softmax()] {
        assert!(config.train(&one).unwrap_err().to_string().contains("expected at least two words"));
    }
    assert!(Word2Vec::skip_gram().train_file("/does/not/exist").is_err());
}

#[test]
fn files_and_sentences_teach_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text");
    let lines: Vec<String> = (0..500).map(|i| format!("a{} b{} c{}", i % 5, i % 7, i % 3)).collect();
    std::fs::write(&path, lines.join("\n") + "\n").unwrap();
    let config = Word2Vec::skip_gram().dim(8).min_count(1).threads(1).epochs(2);
    let file = config.train_file(&path).unwrap();
    let corpus = Corpus::open(&path).unwrap();
    let split = TrainingText::corpus_split_by(&corpus, |line, word| line.split(' ').for_each(word));
    assert_eq!(file.to_array(), config.train(&split).unwrap().to_array());
    let sentences = TrainingText::sentences(|| lines.iter().map(|l| l.split(' ').map(String::from).collect()));
    let other = config.train(&sentences).unwrap();
    assert!(file.words().eq(other.words()));
}

/// Eight words that always occur together: with a large learning rate their rows grow without
/// bound.
fn alphabet(sentences: usize) -> TrainingText<'static> {
    TrainingText::sentences(move || (0..sentences).map(|_| "abcdefgh".chars().map(String::from).collect()))
}

fn quiet(_: &Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn assert_diverged(result: Result<()>, what: &str) {
    match result {
        Err(e @ Error::NotFinite { .. }) => {
            let message = e.to_string();
            assert!(message.contains(" in epoch ") && message.contains("use a smaller lr"), "{what}: {message}");
        }
        other => panic!("{what}: expected that training diverges, found {other:?}"),
    }
}

#[test]
fn training_that_diverges_is_an_error() {
    let ngrams = Ngrams { min_n: 1, max_n: 2, buckets: 50 };
    for (name, config) in [
        ("skip-gram", Word2Vec::skip_gram()),
        ("skip-gram, hierarchical", Word2Vec::skip_gram().hierarchical_softmax()),
        ("cbow", Word2Vec::cbow()),
        ("cbow, sum", Word2Vec::cbow().sum()),
        ("cbow, hierarchical", Word2Vec::cbow().hierarchical_softmax()),
        ("skip-gram, subwords", Word2Vec::skip_gram().subwords(ngrams)),
        ("skip-gram, subwords, hierarchical", Word2Vec::skip_gram().subwords(ngrams).hierarchical_softmax()),
        ("cbow, subwords", Word2Vec::cbow().subwords(ngrams)),
    ] {
        let config = config.dim(20).min_count(1).epochs(5);
        // Vectors that separate all words saturate rather than diverge at a learning rate that is
        // only somewhat too high.
        let lr = if name == "skip-gram" { 5.0 } else { 1e30 };
        for (deterministic, threads) in [(false, 1), (false, 2), (true, 2)] {
            let config = config.clone().deterministic(deterministic).threads(threads).lr(lr);
            let what = format!("{name}, deterministic {deterministic}, {threads} threads");
            assert_diverged(config.train(&alphabet(3000)).map(drop), &what);
            // A run that is stopped early returns the error too, and the observer receives finite
            // losses only.
            let mut reported = Vec::new();
            let stopped = config.lr(1e30).train_model(&alphabet(3000), &mut |p: &Progress| {
                reported.push(p.loss);
                ControlFlow::Break(())
            });
            assert_diverged(stopped.map(drop), &what);
            assert!(reported.iter().all(|loss| loss.is_finite()), "{what}: {reported:?}");
        }
    }
}

#[test]
fn a_diverged_run_keeps_the_previous_model_and_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let text = alphabet(200);
    // A text with new words.
    let more = TrainingText::sentences(|| (0..3000).map(|_| ["a", "b", "x", "y"].map(String::from).to_vec()));
    for deterministic in [false, true] {
        let config = Word2Vec::skip_gram().dim(20).min_count(1).epochs(3).deterministic(deterministic);
        let mut model = config.train_model(&text, &mut quiet).unwrap();
        let (vectors, losses) = (model.vectors(), model.losses().to_vec());
        model.config = model.config.lr(1e30).checkpoint(&path, Duration::ZERO);
        assert_diverged(model.train_more(&more, 5, &mut quiet), "train_more");
        assert!(model.vectors().words().eq(vectors.words()));
        assert_eq!(model.vectors().to_array(), vectors.to_array());
        assert_eq!((model.losses(), model.is_finished()), (&losses[..], true));
        assert!(!path.exists(), "a checkpoint of numbers that are not finite");
        // A checkpoint of a run whose learning rate is too high; it must not be overwritten.
        let mut broken = config.train_model(&text, &mut |_: &Progress| ControlFlow::Break(())).unwrap();
        assert!(!broken.is_finished());
        broken.config = broken.config.lr(1e30);
        broken.save(&path).unwrap();
        let before = std::fs::read(&path).unwrap();
        assert_diverged(Word2VecModel::resume(&path, &text, Duration::ZERO, &mut quiet).map(drop), "resume");
        assert_diverged(config.lr(1e30).checkpoint(&path, Duration::ZERO).train(&text).map(drop), "train");
        assert!(std::fs::read(&path).unwrap() == before);
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn an_epoch_without_a_pair_is_an_error() {
    // One word per line; and words so frequent that subsampling leaves none next to another.
    let alone = TrainingText::sentences(|| (0..100).map(|i| vec![["a", "b"][i % 2].to_string()]));
    for (text, config) in
        [(alone, Word2Vec::skip_gram()), (alphabet(3), Word2Vec::cbow().subsample(1e-9).negative_samples(2))]
    {
        let config = config.dim(4).negative_samples(1).min_count(1);
        for config in [config.clone(), config.hierarchical_softmax().deterministic(true)] {
            let e = config.train(&text).unwrap_err().to_string();
            assert!(e.contains("expected two words of the vocabulary next to each other in epoch 1"), "{e}");
        }
    }
}
