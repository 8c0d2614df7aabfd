//! `Debug` is one short line without numbers of the weights; `Display` of a model is a table of
//! its parameters.

#![allow(clippy::unwrap_used)]

use std::fmt::Debug;

use loquat::checkpoint::gguf::{GgufFile, GgufFormat};
use loquat::checkpoint::{Checkpoint, save_module};
use loquat::embeddings::VectorIndex;
use loquat::models::encoder::{
    BertConfig, EncoderConfig, EncoderForMaskedLm, EncoderForQuestionAnswering, EncoderForSequenceClassification,
    EncoderForTokenClassification, TextEncoder,
};
use loquat::models::{
    CausalLm, CellType, Gpt2, Gpt2Config, GptNeoX, GptNeoXConfig, LanguageModel, Llama, LlamaConfig, MlpConfig, MlpLm,
    RnnConfig, RnnLm, save_gguf,
};
use loquat::nn::{
    Conv1d, Conv1dConfig, Decoder, DecoderLayer, DecoderLayerConfig, Dropout, Embedding, Encoder, EncoderLayer,
    EncoderLayerConfig, FeedForward, FeedForwardConfig, Gru, LayerNorm, LearnedPositions, Linear, Lstm, Module,
    MultiHeadAttention, MultiHeadAttentionConfig, Norm, NormType, Parameter, Recurrent, RecurrentConfig, RmsNorm, Rnn,
    RopeScaling, RotaryPositions, SinusoidalPositions,
};
use loquat::ops::{AttentionMask, Cell, Rope};
use loquat::text::{StopWords, WordCounts};
use loquat::training::{AdamW, Optimizer};
use loquat::{Capture, IdTensor, Load, Result, Rng, Tensor, inspect, ndarray, no_grad};

fn check(cases: &[(&dyn Debug, &str)]) {
    let printed: Vec<String> = cases.iter().map(|(object, _)| format!("{object:?}")).collect();
    assert_eq!(printed, cases.iter().map(|(_, expected)| *expected).collect::<Vec<_>>());
    for (object, expected) in cases {
        assert_eq!(format!("{object:#?}"), *expected, "on one line too when printed at length");
    }
}

#[test]
fn debug_of_layers_is_one_line() -> Result<()> {
    let rng = &mut Rng::seed(1);
    let half = Parameter::constant(Parameter::new(Tensor::zeros(&[3072, 768])).weight().to_bf16());
    let linear = Linear { weight: half.clone(), ..Linear::init(768, 3072, true, &mut *rng)? };
    let mut frozen = Parameter::new(Tensor::zeros(&[2, 3]));
    frozen.set_trainable(false);
    let recurrent = RecurrentConfig::new(3, 4);
    let layer = EncoderLayerConfig::new(64, 8, 256);
    let mut gqa = MultiHeadAttentionConfig::new(64, 8).kv_heads(2);
    let attention = MultiHeadAttention::init(&gqa, &mut *rng)?;
    gqa.head_dim = Some(16);
    check(&[
        (&half, "Parameter([3072, 768], bf16)"),
        (&frozen, "Parameter([2, 3], f32, frozen)"),
        (&linear, "Linear(768 -> 3072, bias, bf16)"),
        (&Linear::init(2, 3, false, &mut *rng)?, "Linear(2 -> 3, f32)"),
        (&Embedding::init(10, 4, 1.0, &mut *rng)?, "Embedding([10, 4], f32)"),
        (&Embedding::init_with_padding(10, 4, 1.0, 0, &mut *rng)?, "Embedding([10, 4], padding_idx=0, f32)"),
        (&LearnedPositions::init(4, 10, 1.0, &mut *rng)?, "LearnedPositions([10, 4], f32)"),
        (&SinusoidalPositions::new(4, 10)?, "SinusoidalPositions([10, 4])"),
        (&LayerNorm::init(8, 1e-5, &mut *rng)?, "LayerNorm([8], eps=1e-5, bias)"),
        (&RmsNorm::init(8, 1e-6, &mut *rng)?, "RmsNorm([8], eps=1e-6)"),
        (&Norm::init(NormType::Rms, 8, 1e-6, &mut *rng)?, "RmsNorm([8], eps=1e-6)"),
        (&Dropout::new(0.1), "Dropout(p=0.1)"),
        (&Conv1d::init(&Conv1dConfig::new(3, 10, 5), &mut *rng)?, "Conv1d(3 -> 10, kernel_size=5, bias, f32)"),
        (
            &Conv1d::init(&Conv1dConfig::new(4, 10, 5).groups(2).stride(3).bias(false), &mut *rng)?,
            "Conv1d(4 -> 10, kernel_size=5, stride=3, groups=2, f32)",
        ),
        (&attention, "MultiHeadAttention(d_model=64, n_heads=8, n_kv_heads=2, f32)"),
        (
            &MultiHeadAttention::init(&gqa, &mut *rng)?,
            "MultiHeadAttention(d_model=64, n_heads=8, n_kv_heads=2, head_dim=16, f32)",
        ),
        (
            &FeedForward::init(&FeedForwardConfig::new(4, 16).swiglu().bias(false), &mut *rng)?,
            "FeedForward(d_model=4, d_ff=16, Silu, gated, f32)",
        ),
        (&Rnn::init(&recurrent, &mut *rng)?, "Rnn(3 -> 4, num_layers=1, bias, f32)"),
        (&Gru::init(&recurrent.bias(false), &mut *rng)?, "Gru(3 -> 4, num_layers=1, f32)"),
        (
            &Lstm::init(&recurrent.layers(2).bidirectional(true).dropout(0.5), &mut *rng)?,
            "Lstm(3 -> 4, num_layers=2, bidirectional, bias, dropout=0.5, f32)",
        ),
        (
            &Recurrent::init(Cell::RnnRelu, &recurrent, &mut *rng)?,
            "Recurrent(RnnRelu, 3 -> 4, num_layers=1, bias, f32)",
        ),
        (&Rope::new(64, 4096, 10_000.0)?, "Rope(rot_dim=64, max_positions=4096)"),
        (
            &RotaryPositions::new(64, 10_000.0, RopeScaling::Default)?,
            "RotaryPositions(rot_dim=64, theta=10000, Default)",
        ),
        (&EncoderLayer::init(&layer, &mut *rng)?, "EncoderLayer(d_model=64, n_heads=8, d_ff=256, f32)"),
        (&Encoder::init(&layer, 2, true, &mut *rng)?, "Encoder(2 layers, 100K parameters, f32)"),
        (
            &DecoderLayer::init(&DecoderLayerConfig::new(64, 8, 256), &mut *rng)?,
            "DecoderLayer(d_model=64, n_heads=8, d_ff=256, f32)",
        ),
        (&Decoder::init(&layer, 2, true, &mut *rng)?, "Decoder(2 layers, 134K parameters, f32)"),
        (&AttentionMask::none(), "AttentionMask()"),
        (&AttentionMask::causal(), "AttentionMask(causal)"),
        (&Tensor::zeros(&[100, 100]), "Tensor[100, 100] [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, …]"),
        (&Tensor::zeros(&[3]), "Tensor[3] [0.0, 0.0, 0.0]"),
        (&IdTensor::new(vec![7; 40], &[40])?, "IdTensor[40] [7, 7, 7, 7, 7, 7, 7, 7, …]"),
    ]);
    // What a caller put together wrongly is printed too.
    let odd = Linear { weight: Parameter::new(Tensor::zeros(&[3])), ..linear };
    check(&[(&odd, "Linear(0 -> 3, bias, f32)")]);
    Ok(())
}

#[test]
fn debug_of_models_and_of_what_holds_many_numbers_is_one_line() -> Result<()> {
    let rng = &mut Rng::seed(1);
    let gpt2 = Gpt2::init(&Gpt2Config::new(65, 32, 24, 2, 3), &mut *rng)?;
    let mut state = gpt2.new_state(1);
    no_grad(|| gpt2.decode(&IdTensor::sequence(&[1, 2, 3]), &mut state))?;
    let (_, seen) = inspect(Capture::Everything, || no_grad(|| gpt2.forward(&IdTensor::sequence(&[1, 2]))));
    let mut config = BertConfig::new(50, 12, 2, 3, 24);
    config.set_labels(&["a", "b", "c"]);
    let config = EncoderConfig::from(config);
    let mut optimizer = Optimizer::new(AdamW { lr: 0.5, ..AdamW::default() })?;
    let mut linear = Linear::init(100, 100, true, &mut *rng)?;
    let gradients = linear.forward(&Tensor::zeros(&[1, 100]))?.sum()?.backward()?;
    optimizer.step(&mut linear, &gradients)?;
    check(&[
        (&gpt2, "Gpt2(2 layers, 16.8K parameters, f32)"),
        (&Gpt2::init(&Gpt2Config::new(65, 32, 24, 1, 3), &mut *rng)?, "Gpt2(1 layer, 9.6K parameters, f32)"),
        (&gpt2.transformer, "Gpt2Model(2 layers, 16.8K parameters, f32)"),
        (&gpt2.transformer.h[0], "Gpt2Block(7.22K parameters, f32)"),
        (&LanguageModel::new(gpt2.clone()), "Gpt2(2 layers, 16.8K parameters, f32)"),
        (&state, "KvCache(n_layers=2, batch=1, len=3)"),
        (&seen, "Inspection(3 hidden states, 2 attention maps)"),
        (&Llama::init(&LlamaConfig::new(65, 24, 64, 2, 6), &mut *rng)?, "Llama(2 layers, 17.1K parameters, f32)"),
        (&GptNeoX::init(&GptNeoXConfig::new(65, 24, 2, 3), &mut *rng)?, "GptNeoX(2 layers, 17.6K parameters, f32)"),
        (
            &RnnLm::init(&RnnConfig::new(CellType::Lstm, 13, 6, 2), &mut *rng)?,
            "RnnLm(Lstm, 2 layers, 841 parameters, f32)",
        ),
        (&MlpLm::init(&MlpConfig::new(13, 6, 8, 3), &mut *rng)?, "MlpLm(window=3, 347 parameters, f32)"),
        (&TextEncoder::init(&config, true, &mut *rng)?, "BertModel(2 layers, 9.52K parameters, f32, pooler)"),
        (
            &EncoderForSequenceClassification::init(&config, &mut *rng)?,
            "BertForSequenceClassification(2 layers, 9.55K parameters, f32)",
        ),
        (
            &EncoderForTokenClassification::init(&config, &mut *rng)?,
            "BertForTokenClassification(2 layers, 9.4K parameters, f32)",
        ),
        (
            &EncoderForQuestionAnswering::init(&config, &mut *rng)?,
            "BertForQuestionAnswering(2 layers, 9.39K parameters, f32)",
        ),
        (&EncoderForMaskedLm::init(&config, &mut *rng)?, "BertForMaskedLM(2 layers, 9.59K parameters, f32)"),
        (&EncoderForMaskedLm::init(&config, &mut *rng)?.head, "MaskedLmHead(12 -> 50, tied)"),
        (&VectorIndex::new(ndarray::Array2::zeros((1000, 8))), "VectorIndex([1000, 8])"),
        (&["a", "b"].iter().collect::<StopWords>(), "StopWords(2)"),
        (&["a", "b", "a"].iter().collect::<WordCounts>(), "WordCounts(2 words, 3 in all)"),
    ]);
    let folder = tempfile::tempdir().unwrap();
    let (tensors, gguf) = (folder.path().join("model.safetensors"), folder.path().join("model.gguf"));
    save_module(&tensors, &gpt2)?;
    let file = Checkpoint::open(&tensors)?;
    assert_eq!(format!("{file:?}"), format!("Checkpoint({tensors:?}, tensors=28, files=1)"));
    save_gguf(&gguf, &gpt2, None, GgufFormat::F32)?;
    let file = GgufFile::open(&gguf, Load::Mmap)?;
    let printed = format!("{file:?}");
    assert!(printed.starts_with(&format!("GgufFile({gguf:?}, ")) && printed.ends_with("tensors=29)"), "{printed}");
    let printed = format!("{optimizer:?}");
    assert!(printed.starts_with("Optimizer(AdamW") && printed.ends_with("2 parameters stepped)"), "{printed}");
    assert!(printed.len() < 200, "{printed}");
    Ok(())
}

#[test]
fn display_of_a_model_is_a_table() -> Result<()> {
    let mut model = Gpt2::init(&Gpt2Config::new(65, 32, 24, 2, 3), &mut Rng::seed(1))?;
    let half = model.transformer.wte.weight.weight().to_bf16();
    model.transformer.wte.weight.set_weight(&half)?;
    let expected = "\
path                     shape     format  parameters
-----------------------------------------------------
transformer.wte.weight   [65, 24]  bf16         1,560
transformer.wpe.weight   [32, 24]  f32            768
transformer.h.0 … transformer.h.1 × 2
  ln_1.weight            [24]      f32             48
  ln_1.bias              [24]      f32             48
  attn.c_attn.weight     [24, 72]  f32          3,456
  attn.c_attn.bias       [72]      f32            144
  attn.c_proj.weight     [24, 24]  f32          1,152
  attn.c_proj.bias       [24]      f32             48
  ln_2.weight            [24]      f32             48
  ln_2.bias              [24]      f32             48
  mlp.c_fc.weight        [24, 96]  f32          4,608
  mlp.c_fc.bias          [96]      f32            192
  mlp.c_proj.weight      [96, 24]  f32          4,608
  mlp.c_proj.bias        [24]      f32             48
transformer.ln_f.weight  [24]      f32             24
transformer.ln_f.bias    [24]      f32             24
-----------------------------------------------------
parameters                                     16,824
trainable                                      15,264
bytes                                          64,176
";
    assert_eq!(model.to_string(), expected);
    assert_eq!(model.summary().to_string(), expected);
    assert_eq!(LanguageModel::new(model).to_string(), expected);

    let config = EncoderConfig::from(BertConfig::new(50, 12, 12, 3, 24));
    let encoder = TextEncoder::init(&config, false, &mut Rng::seed(1))?;
    let table = encoder.to_string();
    assert!(table.contains("encoder.layer.0 … encoder.layer.11 × 12\n"), "{table}");
    let model = EncoderForSequenceClassification::from_encoder(encoder, &mut Rng::seed(1))?;
    let table = model.to_string();
    assert!(table.contains("bert.encoder.layer.0 … bert.encoder.layer.11 × 12\n"), "{table}");
    assert!(table.lines().count() < 40 && table.lines().all(|line| line.chars().count() < 80), "{table}");
    Ok(())
}
