use super::*;
use crate::Rng;

fn quiet(_: &Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn records_of(counts: &Cooccurrences) -> Vec<records::Record> {
    let mut all = Vec::new();
    let each = |r: &mut records::Records| {
        r.for_each(|some| {
            all.extend_from_slice(some);
            Ok(())
        })
    };
    counts.with_records(each).unwrap();
    all
}

fn stories() -> TrainingText<'static> {
    TrainingText::sentences(|| {
        (0..2000usize).map(|i| {
            let story = |k: usize| if (i * 13 + k * 5) % 17 < 5 { i + k } else { i };
            let word = |k: usize| {
                format!("{}{}", ["cat", "dog", "car", "sun", "sea"][story(k) * 7919 % 5], (i / 5 * 3 + k * k) % 5)
            };
            (0..9).map(|k| if k % 4 == 3 { "the".into() } else { word(k) }).collect()
        })
    })
}

fn small() -> Glove {
    Glove::new().dim(12).window(4).epochs(15).x_max(10.0).memory_mb(16)
}

/// The counts, computed from the definition.
fn naive(text: &[Vec<String>], window: usize, a: &str, b: &str, symmetric: bool) -> f64 {
    let mut sum = 0.0;
    for sentence in text {
        for i in 0..sentence.len() {
            for j in i.saturating_sub(window)..i {
                let x = 1.0 / (i - j) as f64;
                if sentence[i] == a && sentence[j] == b {
                    sum += x;
                }
                if symmetric && sentence[j] == a && sentence[i] == b {
                    sum += x;
                }
            }
        }
    }
    sum
}

#[test]
fn counts_are_the_definition_at_any_number_of_threads() {
    let sentences: Vec<Vec<String>> =
        (0..2000).map(|i| (0..7).map(|k| format!("w{}", (i * 37 + k * k * 11 + i / 7) % 300)).collect()).collect();
    let text = TrainingText::sentences(|| sentences.iter().cloned());
    for symmetric in [true, false] {
        let mut all = Vec::new();
        for threads in [1, 2, 4] {
            let glove = Glove { symmetric, ..small().min_count(1).threads(threads) };
            let counts = glove.count(&text, &mut quiet).unwrap();
            let records = records_of(&counts);
            let words = &counts.vocabulary().words;
            for r in records.iter().step_by(97) {
                let (a, b) = (words.get(r.first as usize), words.get(r.second as usize));
                let wanted = naive(&sentences, 4, a, b, symmetric);
                assert!((f64::from(r.x) - wanted).abs() < 1e-4 * wanted, "{a} {b} {symmetric}: {} {wanted}", r.x);
            }
            all.push(records);
        }
        assert!(all.iter().all(|records| *records == all[0]), "threads change the counts");
    }
}

#[test]
fn little_memory_spills_and_changes_nothing() {
    let parent = tempfile::tempdir().unwrap();
    // More pairs than fit into the smallest table.
    let text = TrainingText::sentences(|| {
        (0..40_000usize)
            .map(|i| (0..12).map(|k| format!("w{}", (i * 7919 + k * k * 104_729 + i * k) % 30_011)).collect())
    });
    let count = |mb: usize| {
        let glove = small().window(8).memory_mb(mb).temporary_folder(parent.path());
        let counts = glove.count(&text, &mut quiet).unwrap();
        let files = std::fs::read_dir(parent.path()).unwrap().count();
        let records = records_of(&counts);
        (records, files)
    };
    let (small, _) = count(16);
    let (large, _) = count(2000);
    assert!(small.len() > 700_000, "{}", small.len());
    assert!(small == large);
    assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0, "temporary files are removed");
}

/// The losses of the formula in double precision, with the pairs shuffled in each epoch.
fn plain_losses(records: &[records::Record], words: usize, glove: &Glove) -> Vec<f64> {
    let (dim, lr) = (glove.dim, f64::from(glove.lr));
    let mut rng = Rng::seed(2);
    // A vector, its bias, and the sums of squares of both; words, then contexts.
    let mut rows = vec![vec![1.0; 2 * (dim + 1)]; 2 * words];
    let start = |x: &mut f64| *x = (f64::from(rng.uniform()) - 0.5) / (dim + 1) as f64;
    rows.iter_mut().flat_map(|row| &mut row[..dim + 1]).for_each(start);
    let ways = |r: &records::Record| [(r.first, r.second, r.x), (r.second, r.first, r.x)];
    let mut pairs: Vec<_> =
        records.iter().flat_map(|r| ways(r).into_iter().take(1 + usize::from(r.first != r.second))).collect();
    let epoch = |_| {
        rng.shuffle(&mut pairs);
        let loss = |&(word, context, x): &(u32, u32, f32)| {
            let [a, b] = [word as usize, words + context as usize];
            let dot: f64 = (0..dim).map(|i| rows[a][i] * rows[b][i]).sum();
            let delta = dot + rows[a][dim] + rows[b][dim] - f64::from(x).ln();
            let weight = (f64::from(x) / f64::from(glove.x_max)).powf(f64::from(glove.alpha)).min(1.0);
            for i in 0..=dim {
                let of = |other: f64| weight * delta * if i == dim { 1.0 } else { lr * other };
                for (row, t) in [(a, of(rows[b][i])), (b, of(rows[a][i]))] {
                    rows[row][i] -= t / rows[row][dim + 1 + i].sqrt();
                    rows[row][dim + 1 + i] += t * t;
                }
            }
            0.5 * weight * delta * delta
        };
        pairs.iter().map(loss).sum::<f64>() / pairs.len() as f64
    };
    (0..glove.epochs).map(epoch).collect()
}

#[test]
fn fitting_learns_the_groups_and_the_loss_falls() {
    let glove = small().epochs(50);
    let counts = glove.count(&stories(), &mut quiet).unwrap();
    let mut ends = 0;
    let model = glove
        .fit(&counts, &mut |p: &Progress| {
            ends += usize::from(p.epoch_end);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(ends, 50);
    // Both have left their random initialisation by then.
    let plain = plain_losses(&records_of(&counts), counts.len(), &glove);
    let near = |(found, plain): (&f64, &f64)| (found / plain - 1.0).abs() < 0.1;
    assert!(model.losses()[10..].iter().zip(&plain[10..]).all(near), "{:?}, plainly {plain:?}", model.losses());
    // Near the minimum the loss of an epoch may be slightly above that of the one before.
    assert!(model.losses().is_sorted_by(|a, b| *b < 1.05 * a), "{:?}", model.losses());
    assert!(model.losses()[49] < 0.1 * model.losses()[0], "{:?}", model.losses());
    let v = model.into_vectors();
    let words: Vec<&str> = v.words().filter(|w| *w != "the").collect();
    let same = words.iter().filter(|w| v.most_similar(&[w], &[], 1).unwrap()[0].0[..3] == w[..3]).count();
    assert!(same * 10 > words.len() * 9, "{same} of {}", words.len());
}

#[test]
fn runs_give_the_same_bits_at_any_number_of_threads() {
    let train = |threads| small().epochs(3).threads(threads).train(&stories()).unwrap().to_array();
    let one = train(1);
    assert_eq!(one, train(2));
    assert_eq!(one, train(4));
}

#[test]
fn a_resumed_run_ends_with_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let (path, middle) = (folder.path().join("run"), folder.path().join("middle"));
    let counts = small().count(&stories(), &mut quiet).unwrap();
    let whole = small().epochs(5).fit(&counts, &mut quiet).unwrap();
    let mut seen = 0;
    let broken = small()
        .epochs(5)
        .checkpoint(&path, Duration::ZERO)
        .fit(&counts, &mut |p: &Progress| {
            if p.epoch_end && p.epoch == 3 {
                // The file at this time was written within the epoch.
                std::fs::copy(&path, &middle).unwrap();
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(!broken.is_finished() && broken.losses().len() == 3);
    for from in [&path, &middle] {
        let resumed = GloveModel::resume(from, &counts, Duration::MAX, &mut |p: &Progress| {
            seen = p.words;
            ControlFlow::Continue(())
        })
        .unwrap();
        assert!(resumed.is_finished());
        assert_eq!(resumed.losses(), whole.losses());
        assert_eq!(resumed.vectors.to_array(), whole.vectors.to_array());
        assert_eq!(seen, 5 * (2 * counts.pairs() - counts.diagonal()));
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "no temporary file is left");
    let others = small().max_words(5).count(&stories(), &mut quiet).unwrap();
    let error = GloveModel::resume(&path, &others, Duration::MAX, &mut quiet).unwrap_err().to_string();
    assert!(error.contains("expected the counts of this run (26 words and"), "{error}");
    let whole = std::fs::read(&path).unwrap();
    for cut in [0, 7, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..cut]).unwrap();
        assert!(GloveModel::resume(&path, &counts, Duration::MAX, &mut quiet).is_err(), "cut at {cut}");
    }
}

#[test]
fn counts_can_be_saved_and_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("counts");
    let counts = small().count(&stories(), &mut quiet).unwrap();
    counts.save(&path).unwrap();
    let glove = small().epochs(2);
    let again = Cooccurrences::open(&path, 1).unwrap();
    assert_eq!((again.len(), again.pairs()), (counts.len(), counts.pairs()));
    let (a, b) = (glove.fit(&counts, &mut quiet).unwrap(), glove.fit(&again, &mut quiet).unwrap());
    assert_eq!(a.into_vectors().to_array(), b.into_vectors().to_array());
    let whole = std::fs::read(&path).unwrap();
    for cut in [0, 5, 15, 16, 200, whole.len() - 1] {
        std::fs::write(&path, &whole[..cut]).unwrap();
        assert!(matches!(Cooccurrences::open(&path, 1), Err(Error::Format { .. })), "cut at {cut}");
    }
}

#[test]
fn wrong_settings_and_texts_are_clear_errors() {
    for (glove, wanted) in [
        (small().dim(0), "dim: expected a number above 0, found 0"),
        (small().window(0), "window: expected a number above 0, found 0"),
        (small().epochs(0), "epochs: expected a number above 0, found 0"),
        (small().memory_mb(1), "memory_mb: expected at least 16, found 1"),
        (small().x_max(0.0), "x_max: expected a number above 0, found 0"),
        (small().lr(f32::NAN), "lr: expected a number above 0, found NaN"),
        (small().min_count(1 << 40), "expected words that occur at least"),
        (small().temporary_folder("/does/not/exist"), "/does/not/exist"),
    ] {
        let e = glove.train(&stories()).unwrap_err().to_string();
        assert!(e.contains(wanted), "{e}\n{wanted}");
    }
    let empty = TrainingText::sentences(std::iter::empty::<Vec<String>>);
    assert!(small().train(&empty).unwrap_err().to_string().contains("empty text"));
    let one = TrainingText::sentences(|| (0..9).map(|_| ["word", "word"].map(String::from).to_vec()));
    assert!(small().train(&one).unwrap_err().to_string().contains("found only `word`"));
    let alone = TrainingText::sentences(|| (0..18).map(|i| vec![["a", "b"][i % 2].to_string()]));
    assert!(small().train(&alone).unwrap_err().to_string().contains("expected words that occur together"));
}

#[test]
fn fitting_that_diverges_is_an_error_and_leaves_the_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let counts = small().count(&stories(), &mut quiet).unwrap();
    let fit = |glove: &Glove| glove.fit(&counts, &mut quiet).map(drop);
    for lr in [1e18, 1e30, f32::MAX] {
        let e = fit(&small().lr(lr).checkpoint(&path, Duration::ZERO)).unwrap_err();
        assert!(matches!(e, Error::NotFinite { .. }), "{lr}: {e}");
        let e = e.to_string();
        assert!(e.contains(" in epoch 1 of 15, at a learning rate of") && e.contains("use a smaller lr"), "{lr}: {e}");
        assert!(!path.exists(), "{lr}: a checkpoint of numbers that are not finite");
    }
}
