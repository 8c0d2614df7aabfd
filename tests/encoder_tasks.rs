//! Tasks of encoders (masks, classes, entities, answers) against direct calls of the model.

#![allow(clippy::unwrap_used)]
#![cfg(feature = "tokenizers")]

use loquat::checkpoint::{Pretrained, save_pretrained};
use loquat::models::encoder::{
    BertConfig, EncoderConfig, EncoderForMaskedLm, EncoderForQuestionAnswering, EncoderForSequenceClassification,
    EncoderForTokenClassification, TextBatch, TextEncoder,
};
use loquat::tasks::{FillMask, ProblemType, QuestionAnswering, TextClassifier, TokenClassifier};
use loquat::text::{Tokenizer, TokenizerTrainer};
use loquat::training::{AdamW, Optimizer};
use loquat::{IdTensor, Rng, Tensor, no_grad, ops};

const CORPUS: [&str; 3] = ["the cat sat on the mat", "a dog ran on and on", "who ran? the dog did."];

fn tokenizer() -> Tokenizer {
    TokenizerTrainer::word_piece().vocab_size(90).train(CORPUS).unwrap()
}

fn config(tokenizer: &Tokenizer) -> EncoderConfig {
    let mut config = BertConfig::new(tokenizer.vocab_size(), 12, 2, 3, 24);
    config.initializer_range = 0.5;
    config.max_position_embeddings = 40;
    config.set_labels(&["O", "B-DOG", "I-DOG"]);
    config.into()
}

fn saved(model: &impl Pretrained, tokenizer: &Tokenizer) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    save_pretrained(folder.path(), model).unwrap();
    tokenizer.save_folder(folder.path()).unwrap();
    folder
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    Tensor::from_vec(logits.to_vec(), &[logits.len()]).unwrap().softmax().unwrap().to_vec()
}

fn batch(tokenizer: &Tokenizer, text: &str) -> TextBatch {
    TextBatch::new(&IdTensor::sequence(&tokenizer.encode(text).unwrap().input_ids))
}

#[test]
fn masks_are_filled_with_the_likeliest_tokens() {
    let tokenizer = tokenizer();
    let model = EncoderForMaskedLm::init(&config(&tokenizer), &mut Rng::seed(1)).unwrap();
    let folder = saved(&model, &tokenizer);
    let mask = tokenizer.id_to_token(tokenizer.mask_token_id().unwrap()).unwrap();
    let text = format!("the {mask} sat on {mask}");
    let found = FillMask::open(folder.path()).unwrap().fill(&text, 4).unwrap();
    assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4]);
    let logits = no_grad(|| model.forward(&batch(&tokenizer, &text))).unwrap();
    let ids = tokenizer.encode(text.as_str()).unwrap().input_ids;
    let place = ids.iter().position(|&id| Some(id) == tokenizer.mask_token_id()).unwrap();
    let probs = softmax(&logits.data()[place * tokenizer.vocab_size()..][..tokenizer.vocab_size()]);
    for filled in &found[0] {
        assert!((filled.score - probs[filled.token_id as usize]).abs() < 1e-5);
    }
    assert!(found[0].windows(2).all(|pair| pair[0].score >= pair[1].score));
    assert!((found[0][0].score - probs.iter().copied().fold(0.0, f32::max)).abs() < 1e-5);
    let fill = FillMask::open(folder.path()).unwrap();
    assert!(fill.fill("no mask", 4).is_err());
    // The model reads 40 tokens: a mask after them is an error.
    let cut = format!("the {mask} sat {} {mask} {mask}", "on ".repeat(60));
    let error = fill.fill(&cut, 4).unwrap_err().to_string();
    assert!(error.contains("among the first 40 tokens, found 2 of 3 after them"), "{error}");
    let before = format!("the {mask} sat {}", "on ".repeat(60));
    assert_eq!(fill.fill(&before, 4).unwrap().len(), 1);
}

#[test]
fn classes_are_those_of_the_model_alone_and_in_a_batch() {
    let tokenizer = tokenizer();
    let model = EncoderForSequenceClassification::init(&config(&tokenizer), &mut Rng::seed(2)).unwrap();
    let folder = saved(&model, &tokenizer);
    let classifier = TextClassifier::open(folder.path()).unwrap();
    let all = classifier.classify(&CORPUS).unwrap();
    for (text, classes) in CORPUS.iter().zip(&all) {
        let logits = no_grad(|| model.forward(&batch(&tokenizer, text))).unwrap();
        let probs = softmax(logits.data());
        let mut expected: Vec<(&str, f32)> = ["O", "B-DOG", "I-DOG"].into_iter().zip(probs).collect();
        expected.sort_by(|a, b| b.1.total_cmp(&a.1));
        for (class, (label, score)) in classes.iter().zip(expected) {
            assert!(class.label == label && (class.score - score).abs() < 1e-6, "{class:?} {label} {score}");
        }
        assert_eq!(&classifier.classify(&[*text]).unwrap()[0], classes);
    }
    // Pairs, and texts that are too long.
    let long = "the cat sat on the mat ".repeat(30);
    assert_eq!(classifier.classify(&[("who ran?", long.as_str())]).unwrap()[0].len(), 3);
    assert!(classifier.classify::<&str>(&[]).unwrap().is_empty());
}

#[test]
fn tokens_and_entities_have_places_in_the_text() {
    let tokenizer = tokenizer();
    let model = EncoderForTokenClassification::init(&config(&tokenizer), &mut Rng::seed(3)).unwrap();
    let folder = saved(&model, &tokenizer);
    let classifier = TokenClassifier::open(folder.path()).unwrap();
    let text = "the cat sat on the mat";
    let tokens = classifier.tokens(text).unwrap();
    assert_eq!(tokens[0].range, 0..3);
    let last = tokens.last().unwrap();
    assert_eq!(&text[last.range.clone()], &text[text.len() - last.range.len()..]);
    let entities = classifier.entities(text).unwrap();
    assert!(entities.iter().all(|e| e.label == "DOG" && e.score > 0.0 && e.score <= 1.0));
}

#[test]
fn answers_are_the_best_spans_and_long_texts_are_read_in_windows() {
    let tokenizer = tokenizer();
    let model = EncoderForQuestionAnswering::init(&config(&tokenizer), &mut Rng::seed(4)).unwrap();
    let folder = saved(&model, &tokenizer);
    let reader = QuestionAnswering::open(folder.path()).unwrap();
    let text = "the cat sat on the mat";
    let answers = reader.answer("who ran?", text, 5).unwrap();
    assert!(!answers.is_empty() && answers.len() <= 5);
    assert!(answers.iter().all(|a| a.text == text[a.range.clone()]));
    assert!(answers.windows(2).all(|pair| pair[0].score >= pair[1].score));
    // The naive version: every span of tokens of the text.
    let encoding = tokenizer.encode(("who ran?", text)).unwrap();
    let types = IdTensor::sequence(&encoding.token_type_ids);
    let ids = TextBatch::new(&IdTensor::sequence(&encoding.input_ids)).token_type_ids(&types);
    let (begin, end) = no_grad(|| model.forward(&ids)).unwrap();
    let inside: Vec<usize> = (0..encoding.len()).filter(|&i| encoding.sequence_ids[i] == Some(1)).collect();
    let probs = |x: &Tensor| softmax(&inside.iter().map(|&i| x.data()[i]).collect::<Vec<_>>());
    let (begin, end) = (probs(&begin), probs(&end));
    let mut best = (0.0, 0, 0);
    for (b, from) in begin.iter().enumerate() {
        for (e, to) in end.iter().enumerate().skip(b).take(15) {
            if from * to > best.0 {
                best = (from * to, b, e);
            }
        }
    }
    assert!((answers[0].score - best.0).abs() < 1e-5);
    assert_eq!(answers[0].range, encoding.offsets[inside[best.1]].0..encoding.offsets[inside[best.2]].1);
    let long = "the cat sat on the mat. a dog ran on and on. ".repeat(9);
    let answers = reader.answer("who ran?", &long, 1000).unwrap();
    assert!(answers.iter().any(|a| a.range.start > 300), "the last window was read");
    assert!(reader.answer(&long, "the cat", 1).is_err());
}

#[test]
fn a_model_in_memory_answers_as_the_same_one_saved_and_opened() {
    let tokenizer = tokenizer();
    let config = config(&tokenizer);
    let mut rng = Rng::seed(5);

    let model = EncoderForMaskedLm::init(&config, &mut rng).unwrap();
    let folder = saved(&model, &tokenizer);
    let fill = FillMask::new(model, tokenizer.clone()).unwrap();
    let text = "the [MASK] sat on [MASK]";
    assert_eq!(fill.fill(text, 5).unwrap(), FillMask::open(folder.path()).unwrap().fill(text, 5).unwrap());

    let model = EncoderForTokenClassification::init(&config, &mut rng).unwrap();
    let folder = saved(&model, &tokenizer);
    let classifier = TokenClassifier::new(model, tokenizer.clone()).unwrap();
    let opened = TokenClassifier::open(folder.path()).unwrap();
    assert_eq!(classifier.tokens(CORPUS[0]).unwrap(), opened.tokens(CORPUS[0]).unwrap());
    assert_eq!(classifier.entities(CORPUS[1]).unwrap(), opened.entities(CORPUS[1]).unwrap());
    assert_eq!(classifier.max_seq_len(4).tokens(CORPUS[0]).unwrap().len(), 2, "two are special");

    let model = EncoderForQuestionAnswering::init(&config, &mut rng).unwrap();
    let folder = saved(&model, &tokenizer);
    let reader = QuestionAnswering::new(model, tokenizer.clone()).unwrap();
    let opened = QuestionAnswering::open(folder.path()).unwrap();
    let long = "the cat sat on the mat. ".repeat(9);
    assert_eq!(reader.answer("who ran?", &long, 9).unwrap(), opened.answer("who ran?", &long, 9).unwrap());

    let model = EncoderForSequenceClassification::init(&config, &mut rng).unwrap();
    for problem in [ProblemType::SingleLabel, ProblemType::MultiLabel, ProblemType::Regression] {
        let classifier = TextClassifier::new(model.clone(), tokenizer.clone()).unwrap().problem_type(problem);
        let classifier = classifier.labels(&["x", "y", "z"]).unwrap();
        let folder = saved(classifier.model(), classifier.tokenizer());
        let opened = TextClassifier::open(folder.path()).unwrap();
        assert_eq!(classifier.classify(&CORPUS).unwrap(), opened.classify(&CORPUS).unwrap(), "{problem:?}");
        let sum: f32 = opened.classify(&CORPUS[..1]).unwrap()[0].iter().map(|class| class.score).sum();
        assert_eq!((sum - 1.0).abs() < 1e-5, problem == ProblemType::SingleLabel);
    }
}

#[test]
fn an_encoder_is_fine_tuned_and_wrapped_without_a_folder() {
    let tokenizer = tokenizer();
    let mut config = config(&tokenizer);
    config.set_labels(&["cat", "dog"]);
    let mut rng = Rng::seed(6);
    let encoder = TextEncoder::init(&config, true, &mut rng).unwrap(); // or TextEncoder::open
    let mut model = EncoderForSequenceClassification::from_encoder(encoder, &mut rng).unwrap();
    let mut optimizer = Optimizer::new(AdamW { lr: 0.01, ..AdamW::default() }).unwrap();
    let labels = [0, 1, 1];
    for _ in 0..30 {
        for (text, label) in CORPUS.iter().zip(labels) {
            let logits = model.forward(&batch(&tokenizer, text)).unwrap();
            let loss = ops::cross_entropy(&logits, &IdTensor::new(vec![label], &[1]).unwrap()).unwrap();
            optimizer.step(&mut model, &loss.backward().unwrap()).unwrap();
        }
    }
    let folder = saved(&model, &tokenizer);
    let classifier = TextClassifier::new(model, tokenizer).unwrap();
    let printed = format!("{classifier:?}");
    assert!(printed.starts_with("TextClassifier(BertForSequenceClassification(2 layers, "), "{printed}");
    assert!(printed.ends_with(" parameters, f32), labels=2, SingleLabel)"), "{printed}");
    let classes = classifier.classify(&CORPUS).unwrap();
    for (classes, label) in classes.iter().zip(labels) {
        assert_eq!(classes[0].label, ["cat", "dog"][label as usize]);
    }
    assert_eq!(TextClassifier::open(folder.path()).unwrap().classify(&CORPUS).unwrap(), classes);
}

#[test]
fn what_does_not_fit_together_is_an_error() {
    let tokenizer = tokenizer();
    let config = config(&tokenizer);
    let mut model = EncoderForSequenceClassification::init(&config, &mut Rng::seed(7)).unwrap();
    let classifier = TextClassifier::new(model.clone(), tokenizer.clone()).unwrap();
    let error = classifier.labels(&["only", "two"]).unwrap_err().to_string();
    assert_eq!(error, "labels: expected 3 labels, one for each class of the head, found 2");
    model.encoder.config.set_labels(&["a", "b", "c", "d"]);
    let error = TextClassifier::new(model.clone(), tokenizer.clone()).unwrap_err().to_string();
    assert_eq!(error, "labels: expected 3 labels, one for each class of the head, found 4");

    let mut larger = tokenizer.clone();
    larger.add_tokens(["loquat"]).unwrap();
    let rows = tokenizer.vocab_size();
    let expected =
        format!("tokenizer: expected at most {rows} tokens, the rows of the model's embedding, found {}", rows + 1);
    let model = EncoderForQuestionAnswering::init(&config, &mut Rng::seed(7)).unwrap();
    assert_eq!(QuestionAnswering::new(model, larger.clone()).unwrap_err().to_string(), expected);
    let model = EncoderForTokenClassification::init(&config, &mut Rng::seed(7)).unwrap();
    assert_eq!(TokenClassifier::new(model, larger.clone()).unwrap_err().to_string(), expected);
    let model = EncoderForMaskedLm::init(&config, &mut Rng::seed(7)).unwrap();
    assert_eq!(FillMask::new(model.clone(), larger).unwrap_err().to_string(), expected);

    let without_mask = TokenizerTrainer::byte_level_bpe().vocab_size(260).train(CORPUS).unwrap();
    let error = FillMask::new(model, without_mask).unwrap_err().to_string();
    assert!(error.contains("the tokenizer has no mask token"), "{error}");
}
