//! Every operation and layer gives PyTorch's output and gradients (`fixtures/make_layers.py`),
//! within 1e-5 of the largest number of a tensor, or of 0.01 if all are smaller (a gradient that is
//! zero except for rounding).

#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use loquat::nn::{self, *};

use loquat::ops::{
    self, Activation, Attention, BinaryCrossEntropy, Cell, CrossEntropy, Reduction, WeightLayout, concat, stack,
};
use loquat::{AttentionMask, Checkpoint, IdTensor, Result, Tensor, no_grad};

/// A file of cases, and the names of those that were run.
struct Fixture {
    file: Checkpoint,
    run: RefCell<Vec<String>>,
}

/// The inputs of a case.
struct Inputs<'f> {
    fixture: &'f Fixture,
    case: &'f str,
    tensors: BTreeMap<String, Tensor>,
}

impl Inputs<'_> {
    fn x(&self, name: &str) -> &Tensor {
        &self.tensors[name]
    }

    fn optional(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// An input without a gradient.
    fn constant(&self, name: &str) -> Tensor {
        self.fixture.tensor(&format!("{}.ids.{name}", self.case))
    }

    fn ids(&self, name: &str) -> IdTensor {
        let ids = self.fixture.tensor(&format!("{}.ids.{name}", self.case));
        IdTensor::new(ids.data().iter().map(|&x| x as u32).collect::<Vec<_>>(), ids.shape()).unwrap()
    }
}

impl Fixture {
    fn open(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
        Self { file: Checkpoint::open(path).unwrap(), run: RefCell::default() }
    }

    fn tensor(&self, name: &str) -> Tensor {
        self.file.tensor(name).unwrap_or_else(|| panic!("the fixture lacks `{name}`")).to_tensor().unwrap()
    }

    /// The names that begin with `prefix`, without it.
    fn below<'f>(&'f self, prefix: &'f str) -> impl Iterator<Item = &'f str> {
        self.file.names().filter_map(move |name| name.strip_prefix(prefix))
    }

    fn inputs<'f>(&'f self, case: &'f str) -> Inputs<'f> {
        self.run.borrow_mut().push(case.into());
        let prefix = format!("{case}.input.");
        let tensors = self.below(&prefix).map(|name| (name.into(), self.tensor(&format!("{prefix}{name}")).watch()));
        Inputs { fixture: self, case, tensors: tensors.collect() }
    }

    /// Compares an operation.
    #[track_caller]
    fn op(&self, case: &str, f: impl Fn(&Inputs<'_>) -> Result<Tensor>) {
        self.check(case, &[], &self.inputs(case), f);
    }

    /// Compares a layer, loaded from the state dict.
    #[track_caller]
    fn layer<M: Module>(
        &self,
        case: &str,
        init: impl FnOnce(Parameters<'_>) -> Result<M>,
        f: impl Fn(&M, &Inputs<'_>) -> Result<Tensor>,
    ) {
        let prefix = format!("{case}.param.");
        let loader = self.file.loader().ignore(|name| !name.starts_with(&prefix));
        let module = loader.load(|mut p| init(p.at(case).at("param"))).unwrap_or_else(|e| panic!("{case}: {e}"));
        let parameters = module.parameters();
        assert_eq!(parameters.len(), self.below(&prefix).count(), "{case}: parameters");
        self.check(case, &parameters, &self.inputs(case), |inputs| f(&module, inputs));
    }

    #[track_caller]
    fn check(
        &self,
        case: &str,
        parameters: &[(String, &Parameter)],
        inputs: &Inputs<'_>,
        f: impl Fn(&Inputs<'_>) -> Result<Tensor>,
    ) {
        let y = f(inputs).unwrap_or_else(|e| panic!("{case}: {e}"));
        self.compare(case, "output", &y);
        let gradients = y.backward_from(self.tensor(&format!("{case}.doutput"))).unwrap();
        for (name, x) in &inputs.tensors {
            let dx = gradients.of(x).unwrap_or_else(|| panic!("{case}: no gradient of {name}"));
            self.compare(case, &format!("dinput.{name}"), dx);
        }
        for (path, parameter) in parameters {
            let dp = gradients.of(parameter.tensor()).unwrap_or_else(|| panic!("{case}: no gradient of {path}"));
            self.compare(case, &format!("dparam.{path}"), dp);
        }
        // Without recording, other code may run.
        self.compare(case, "output", &no_grad(|| f(inputs)).unwrap());
    }

    #[track_caller]
    fn compare(&self, case: &str, name: &str, found: &Tensor) {
        let expected = self.tensor(&format!("{case}.{name}"));
        assert_eq!(found.shape(), expected.shape(), "{case}: shape of {name}");
        let largest = expected.data().iter().fold(0f32, |max, x| max.max(x.abs()));
        for (i, (found, expected)) in found.data().iter().zip(expected.data()).enumerate() {
            let error = (found - expected).abs();
            assert!(error <= 1e-5 * largest.max(1e-2), "{case}: {name}[{i}] is {found}, expected {expected}");
        }
    }

    /// Checks that every case of the file was run.
    fn finish(self) {
        let run = self.run.into_inner();
        let mut left: Vec<&str> = self.file.names().filter_map(|name| name.strip_suffix(".output")).collect();
        left.retain(|case| !run.iter().any(|run| run == case));
        assert!(left.is_empty(), "not compared: {left:?}");
        assert!(run.len() > 40, "only {} cases", run.len());
    }
}

/// Concatenates all parts.
fn flat(parts: &[&Tensor]) -> Result<Tensor> {
    let parts = parts.iter().map(|x| x.reshape(&[x.len()])).collect::<Result<Vec<_>>>()?;
    concat(&parts.iter().collect::<Vec<_>>(), 0)
}

#[test]
fn operations() {
    let fixture = Fixture::open("ops.safetensors");
    for shape in ["same", "row", "column", "number"] {
        fixture.op(&format!("add_{shape}"), |i| i.x("a").add(i.x("b")));
        fixture.op(&format!("sub_{shape}"), |i| i.x("a").sub(i.x("b")));
        fixture.op(&format!("mul_{shape}"), |i| i.x("a").mul(i.x("b")));
        fixture.op(&format!("div_{shape}"), |i| i.x("a").div(i.x("b")));
    }
    fixture.op("square", |i| i.x("a").mul(i.x("a"))?.add(i.x("a")));
    fixture.op("scale", |i| Ok(i.x("a").scale(-2.5)));
    fixture.op("shift", |i| i.x("a").add_scalar(1.5));
    fixture.op("sum", |i| i.x("a").sum());
    fixture.op("mean", |i| i.x("a").mean());
    for axis in 0..3 {
        fixture.op(&format!("sum_axis_{axis}"), |i| i.x("a").sum_axis(axis));
        fixture.op(&format!("mean_axis_{axis}"), |i| i.x("a").mean_axis(axis));
    }
    fixture.op("reshape", |i| i.x("a").reshape(&[5, 6]));
    fixture.op("permute", |i| i.x("a").permute(&[2, 0, 1]));
    fixture.op("transpose", |i| i.x("a").transpose(-1, -2));
    fixture.op("narrow", |i| i.x("a").narrow(1, 1, 2));
    fixture.op("split", |i| concat(&i.x("a").split(2, 1)?.iter().rev().collect::<Vec<_>>(), 1));
    fixture.op("concat", |i| concat(&[i.x("a"), i.x("b"), i.x("a")], 1));
    fixture.op("stack", |i| stack(&[i.x("a"), i.x("b")], 1));

    use Activation::{Gelu, GeluTanh, Relu, Sigmoid, Silu, Tanh};
    let activations =
        [("relu", Relu), ("gelu", Gelu), ("gelu_tanh", GeluTanh), ("silu", Silu), ("sigmoid", Sigmoid), ("tanh", Tanh)];
    for (name, activation) in activations {
        fixture.op(name, |i| Ok(i.x("a").activate(activation)));
    }
    for shape in ["odd", "wide", "one"] {
        fixture.op(&format!("softmax_{shape}"), |i| i.x("a").softmax());
        fixture.op(&format!("log_softmax_{shape}"), |i| i.x("a").log_softmax());
    }
    for name in ["matmul", "matmul_batch", "matmul_shared"] {
        fixture.op(name, |i| i.x("a").matmul(i.x("b")));
    }
    fixture.op("matmul_transposed", |i| i.x("a").matmul_transposed(i.x("b")));
    fixture.op("linear", |i| ops::linear(i.x("x"), i.x("w"), i.optional("b"), WeightLayout::OutIn));
    fixture.op("linear_in_out", |i| ops::linear(i.x("x"), i.x("w"), None, WeightLayout::InOut));
    for shape in ["odd", "deep", "one_row"] {
        let layer_norm = |i: &Inputs<'_>| ops::layer_norm(i.x("x"), i.x("w"), i.optional("b"), 1e-5);
        fixture.op(&format!("layer_norm_{shape}"), layer_norm);
        fixture.op(&format!("layer_norm_{shape}_no_bias"), layer_norm);
        fixture.op(&format!("rms_norm_{shape}"), |i| ops::rms_norm(i.x("x"), i.x("w"), 1e-6));
    }
    fixture.op("embedding", |i| ops::embedding(i.x("table"), &i.ids("ids")));
    for (name, label_smoothing) in [("plain", 0.0), ("some", 0.0), ("smooth", 0.1), ("some_smooth", 0.2)] {
        let loss = CrossEntropy { ignore_index: Some(999), label_smoothing, ..CrossEntropy::default() };
        fixture.op(&format!("cross_entropy_{name}"), |i| loss.loss(i.x("x"), &i.ids("labels")));
    }
    fixture.op("bce", |i| {
        let targets = i.fixture.tensor("bce.ids.targets");
        ops::binary_cross_entropy_with_logits(i.x("x"), &targets)
    });
    fixture.op("mse", |i| ops::mse_loss(i.x("x"), i.x("target")));

    let attention = |n_heads, n_kv_heads| Attention { n_kv_heads, ..Attention::new(n_heads) };
    let none = |_: &Inputs<'_>| AttentionMask::none();
    let causal = |_: &Inputs<'_>| AttentionMask::causal();
    let padding = |i: &Inputs<'_>| AttentionMask::padding(&i.ids("seen"));
    type Mask<'a> = &'a dyn Fn(&Inputs<'_>) -> AttentionMask;
    let masks: [(&str, Attention, Mask<'_>); 9] = [
        ("plain", attention(2, 2), &none),
        ("one", attention(1, 1), &none),
        ("causal", attention(3, 3), &causal),
        ("offset", attention(2, 2), &causal),
        ("grouped", Attention { scale: Some(0.3), ..attention(6, 2) }, &causal),
        ("padding", attention(2, 2), &padding),
        ("left_padding", attention(2, 1), &padding),
        ("allowed", attention(2, 2), &|i| AttentionMask::allowed(&i.ids("allowed"))),
        ("bias", attention(2, 2), &|i| AttentionMask::additive(i.x("bias"))),
    ];
    for (name, attention, mask) in masks {
        let name = format!("attention_{name}");
        fixture.op(&name, |i| attention.forward(i.x("q"), i.x("k"), i.x("v"), &mask(i)));
        fixture.op(&name, |i| Ok(attention.with_probs(i.x("q"), i.x("k"), i.x("v"), &mask(i))?.0));
    }
    fixture.op("attention_packed", |i| attention(4, 2).forward_packed(i.x("qkv"), &AttentionMask::causal()));
    for (name, rot_dim, interleaved) in
        [("halves", 8, false), ("neighbours", 8, true), ("part", 6, false), ("part_neighbours", 4, true)]
    {
        let rope = ops::Rope::new(rot_dim, 31, 10_000.0).unwrap();
        let rope = if interleaved { rope.interleaved() } else { rope };
        fixture.op(&format!("rope_{name}"), |i| rope.forward(i.x("x"), 3, &i.ids("positions")));
    }
    let conv = ops::Conv1d::default();
    let convolutions = [
        ("plain", conv),
        ("one", conv),
        ("stride", ops::Conv1d { stride: 3, padding: 2, ..conv }),
        ("dilation", ops::Conv1d { dilation: 3, padding: 3, ..conv }),
        ("groups", ops::Conv1d { groups: 3, stride: 2, padding: 1, ..conv }),
    ];
    for (name, conv) in convolutions {
        fixture.op(&format!("conv1d_{name}"), |i| conv.forward(i.x("x"), i.x("w"), i.optional("b")));
    }
    fixture.op("max_over_time", |i| ops::max_over_time(i.x("x"), None));

    fixture.op("softplus", |i| Ok(i.x("a").softplus()));
    fixture.op("elu", |i| Ok(i.x("a").elu(1.0)));
    fixture.op("elu_alpha", |i| Ok(i.x("a").elu(1.5)));
    fixture.op("leaky_relu", |i| Ok(i.x("a").leaky_relu(0.01)));
    fixture.op("leaky_relu_slope", |i| Ok(i.x("a").leaky_relu(0.2)));
    for (name, reduction) in [("mean", Reduction::Mean), ("sum", Reduction::Sum), ("none", Reduction::None)] {
        for (smooth, label_smoothing) in [("", 0.0), ("_smooth", 0.2)] {
            for weighted in ["", "_weighted"] {
                fixture.op(&format!("cross_entropy_{name}{smooth}{weighted}"), |i| {
                    let weight = (!weighted.is_empty()).then(|| i.constant("weight"));
                    let loss = CrossEntropy { ignore_index: Some(999), label_smoothing, weight, reduction };
                    loss.loss(i.x("x"), &i.ids("labels"))
                });
            }
        }
        fixture.op(&format!("bce_{name}"), |i| {
            let loss = BinaryCrossEntropy { pos_weight: Some(i.constant("pos_weight")), reduction };
            loss.loss(i.x("x"), &i.constant("targets"))
        });
        fixture.op(&format!("mse_{name}"), |i| ops::mse_loss_with(i.x("x"), i.x("target"), reduction));
    }
    fixture.op("embedding_padding", |i| ops::embedding_with_padding(i.x("table"), &i.ids("ids"), Some(3)));
    for axes in ["two", "three", "all"] {
        let layer_norm = |i: &Inputs<'_>| ops::layer_norm(i.x("x"), i.x("w"), i.optional("b"), 1e-5);
        fixture.op(&format!("layer_norm_over_{axes}"), layer_norm);
        fixture.op(&format!("layer_norm_over_{axes}_no_bias"), layer_norm);
        fixture.op(&format!("rms_norm_over_{axes}"), |i| ops::rms_norm(i.x("x"), i.x("w"), 1e-6));
    }
    let pools = [
        ("plain", MaxPool1d::new(2)),
        ("stride", MaxPool1d { stride: 2, padding: 1, ..MaxPool1d::new(3) }),
        ("dilation", MaxPool1d { stride: 1, padding: 2, dilation: 2, ..MaxPool1d::new(4) }),
    ];
    for (name, pool) in pools {
        fixture.op(&format!("max_pool1d_{name}"), |i| pool.forward(i.x("x")));
    }
    fixture.finish();
}

#[test]
fn layers() {
    let fixture = Fixture::open("layers.safetensors");
    let none = AttentionMask::none();
    let causal = AttentionMask::causal();
    let padding = |i: &Inputs<'_>| AttentionMask::padding(&i.ids("seen"));

    fixture.layer("linear", |p| Linear::init(7, 5, true, p), |m, i| m.forward(i.x("x")));
    fixture.layer("linear_no_bias", |p| Linear::init(19, 3, false, p), |m, i| m.forward(i.x("x")));
    fixture.layer("embedding", |p| Embedding::init(7, 5, 1.0, p), |m, i| m.forward(&i.ids("ids")));
    fixture.layer("layer_norm", |p| LayerNorm::init(13, 1e-6, p), |m, i| m.forward(i.x("x")));
    fixture.layer("rms_norm", |p| RmsNorm::init(13, 1e-6, p), |m, i| m.forward(i.x("x")));

    let mha = MultiHeadAttentionConfig::new;
    for (name, config) in [("", mha(6, 2)), ("_wide", mha(20, 5)), ("_no_bias", mha(6, 3).bias(false))] {
        let name = format!("mha{name}");
        fixture.layer(&name, |p| MultiHeadAttention::init(&config, p), |m, i| m.forward(i.x("x"), &none));
    }
    let plain = |p: Parameters<'_>| MultiHeadAttention::init(&mha(6, 2), p);
    fixture.layer("mha_causal", plain, |m, i| m.forward(i.x("x"), &causal));
    fixture.layer("mha_padding_causal", plain, |m, i| m.forward(i.x("x"), &causal.and(&padding(i))));
    fixture.layer("mha_cross", plain, |m, i| m.cross(i.x("x"), i.x("memory"), i.x("memory"), &none));
    let apart = |p: Parameters<'_>| MultiHeadAttention::init(&mha(6, 3).memory_dims(5, 4), p);
    fixture.layer("mha_apart", apart, |m, i| m.cross(i.x("x"), i.x("key"), i.x("value"), &none));
    fixture.layer("mha_probs", plain, |m, i| {
        let (y, probs) = m.forward_with_probs(i.x("x"), &causal)?;
        flat(&[&y, &probs])
    });
    let grouped = mha(10, 6).kv_heads(2).head_dim(4).rope(Rope::new(4, 9, 100.0).unwrap());
    let init = |p: Parameters<'_>| MultiHeadAttention::init(&grouped, p);
    fixture.layer("mha_grouped_rotary", init, |m, i| m.forward(i.x("x"), &causal));

    let config = FeedForwardConfig::new(5, 11);
    for (name, config) in [("relu", config), ("gelu", config.activation(Activation::Gelu)), ("swiglu", config.swiglu())]
    {
        let name = format!("feed_forward_{name}");
        fixture.layer(&name, |p| FeedForward::init(&config, p), |m, i| m.forward(i.x("x")));
    }

    let layer = |d_model, n_heads, d_ff| EncoderLayerConfig::new(d_model, n_heads, d_ff).dropout(0.0);
    let post = layer(6, 2, 10);
    fixture.layer("encoder_layer", |p| EncoderLayer::init(&post, p), |m, i| m.forward(i.x("x"), &padding(i)));
    let pre = layer(8, 4, 7).activation(Activation::Gelu).norm_first(true).eps(1e-6);
    fixture.layer("encoder_layer_pre", |p| EncoderLayer::init(&pre, p), |m, i| m.forward(i.x("x"), &causal));
    let bare = layer(6, 2, 5).bias(false);
    fixture.layer("encoder_layer_no_bias", |p| EncoderLayer::init(&bare, p), |m, i| m.forward(i.x("x"), &none));
    let pre = post.clone().norm_first(true);
    let encoder = |p: Parameters<'_>| Encoder::init(&pre, 2, true, p);
    fixture.layer("encoder", encoder, |m, i| m.forward(i.x("x"), &causal.and(&padding(i))));
    fixture.layer(
        "decoder_layer",
        |p| DecoderLayer::init(&post, p),
        |m, i| m.forward(i.x("x"), i.x("memory"), &causal, &padding(i)),
    );
    let pre = layer(6, 3, 9).activation(Activation::Gelu).norm_first(true);
    let decoder = |p: Parameters<'_>| Decoder::init(&pre, 2, true, p);
    fixture.layer("decoder", decoder, |m, i| m.forward(i.x("x"), i.x("memory"), &causal, &none));

    fixture.layer("learned_positions", |p| LearnedPositions::init(5, 9, 0.02, p), |m, i| m.forward(i.x("x"), 2));
    let waves = SinusoidalPositions::new(5, 7).unwrap();
    fixture.op("sinusoidal_positions", |i| waves.forward(i.x("x"), 3));

    let cells = [("rnn", Cell::RnnTanh), ("rnn_relu", Cell::RnnRelu), ("lstm", Cell::Lstm), ("gru", Cell::Gru)];
    for (name, cell) in cells {
        let shapes = [
            ("", RecurrentConfig::new(3, 5), false),
            ("_state", RecurrentConfig::new(1, 17), false),
            ("_no_bias", RecurrentConfig::new(4, 3).bias(false), true),
            ("_deep", RecurrentConfig::new(3, 4).layers(2).bidirectional(true), true),
        ];
        for (suffix, config, packed) in shapes {
            let run = |layer: &Recurrent, i: &Inputs<'_>| {
                let lengths: Vec<usize> = i.ids("lengths").data().iter().map(|&l| l as usize).collect();
                let state = i.optional("h").map(|h| RecurrentState { h: h.clone(), c: i.optional("c").cloned() });
                let (y, last) = layer.forward(i.x("x"), state.as_ref(), packed.then_some(&lengths))?;
                flat(&[&y, &last.h].into_iter().chain(&last.c).collect::<Vec<_>>())
            };
            fixture.layer(&format!("{name}{suffix}"), |p| Recurrent::init(cell, &config, p), run);
        }
    }

    let config = Conv1dConfig::new(6, 9, 3).stride(2).padding(2).dilation(2).groups(3);
    fixture.layer("conv1d", |p| nn::Conv1d::init(&config, p), |m, i| m.forward(i.x("x")));
    let config = Conv1dConfig::new(5, 7, 3).bias(false);
    fixture.layer("conv1d_no_bias", |p| nn::Conv1d::init(&config, p), |m, i| m.forward(i.x("x")));
    let config = Conv1dConfig::new(5, 7, 2);
    let features = |m: &nn::Conv1d, i: &Inputs<'_>| m.max_over_time(&i.x("x").transpose(1, 2)?);
    fixture.layer("text_features", |p| nn::Conv1d::init(&config, p), features);

    fixture.layer("layer_norm_no_bias", |p| LayerNorm::over(&[13], 1e-5, false, p), |m, i| m.forward(i.x("x")));
    fixture.layer("layer_norm_over", |p| LayerNorm::over(&[3, 5], 1e-5, true, p), |m, i| m.forward(i.x("x")));
    let padded = |p: Parameters<'_>| Embedding::init_with_padding(7, 5, 1.0, 3, p);
    fixture.layer("embedding_padding", padded, |m, i| m.forward(&i.ids("ids")));
    fixture.finish();
}
