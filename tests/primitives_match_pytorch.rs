//! Every tensor primitive gives PyTorch's values and gradients (`fixtures/make_primitives.py`), and
//! so do three losses that are written with nothing else: InfoNCE, distillation and a variational
//! autoencoder's. Within 1e-5 of a tensor's largest number, or of 0.01 where all are smaller.

#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::path::Path;

use loquat::ops::{concat, custom_op, einsum, gradient_check, one_hot, stack, where_};
use loquat::{Checkpoint, IdTensor, Result, Rng, Tensor};

/// The file of cases, and which of them were run.
struct Fixture {
    file: Checkpoint,
    run: RefCell<Vec<String>>,
}

/// What a case feeds in.
struct Inputs<'f> {
    fixture: &'f Fixture,
    case: &'f str,
    tensors: Vec<(String, Tensor)>,
}

impl Inputs<'_> {
    fn x(&self, name: &str) -> &Tensor {
        &self.tensors.iter().find(|(other, _)| other == name).unwrap_or_else(|| panic!("{}: {name}", self.case)).1
    }

    /// The only input.
    fn input(&self) -> &Tensor {
        assert_eq!(self.tensors.len(), 1, "{}", self.case);
        &self.tensors[0].1
    }

    /// The inputs of a function of two.
    fn pair(&self) -> (&Tensor, &Tensor) {
        assert_eq!(self.tensors.len(), 2, "{}", self.case);
        (&self.tensors[0].1, &self.tensors[1].1)
    }

    /// A tensor that gets no gradient.
    fn constant(&self, name: &str) -> Tensor {
        self.fixture.tensor(&format!("{}.ids.{name}", self.case)).unwrap()
    }

    fn ids(&self) -> IdTensor {
        let ids = self.constant("ids");
        IdTensor::new(ids.data().iter().map(|&x| x as u32).collect::<Vec<_>>(), ids.shape()).unwrap()
    }
}

fn as_tensor(ids: &IdTensor) -> Tensor {
    Tensor::from_vec(ids.data().iter().map(|&id| id as f32).collect(), ids.shape()).unwrap()
}

impl Fixture {
    fn tensor(&self, name: &str) -> Option<Tensor> {
        Some(self.file.tensor(name)?.to_tensor().unwrap())
    }

    /// Computes a case, and its gradients where PyTorch has some.
    #[track_caller]
    fn case(&self, case: &str, f: impl Fn(&Inputs<'_>) -> Result<Tensor>) {
        self.run.borrow_mut().push(case.into());
        let prefix = format!("{case}.input.");
        let mut names: Vec<&str> = self.file.names().filter_map(|name| name.strip_prefix(&prefix)).collect();
        names.sort_unstable();
        let tensor = |name: &str| self.tensor(&format!("{prefix}{name}")).unwrap().watch();
        let tensors = names.iter().map(|name| (name.to_string(), tensor(name))).collect();
        let inputs = Inputs { fixture: self, case, tensors };
        let y = f(&inputs).unwrap_or_else(|e| panic!("{case}: {e}"));
        self.compare(case, "output", &y);
        let Some(dy) = self.tensor(&format!("{case}.doutput")) else {
            return assert!(!y.requires_grad(), "{case}: a constant");
        };
        let gradients = y.backward_from(dy).unwrap();
        for (name, x) in &inputs.tensors {
            let dx = gradients.of(x).unwrap_or_else(|| panic!("{case}: no gradient of {name}"));
            self.compare(case, &format!("dinput.{name}"), dx);
        }
    }

    #[track_caller]
    fn compare(&self, case: &str, name: &str, found: &Tensor) {
        let expected = self.tensor(&format!("{case}.{name}")).unwrap();
        assert_eq!(found.shape(), expected.shape(), "{case}: shape of {name}");
        let largest = expected.data().iter().fold(0f32, |max, x| max.max(x.abs()));
        for (i, (found, expected)) in found.data().iter().zip(expected.data()).enumerate() {
            let error = (found - expected).abs();
            assert!(error <= 1e-5 * largest.max(1e-2), "{case}: {name}[{i}] is {found}, expected {expected}");
        }
    }
}

const SHAPES: [&str; 5] = ["same", "row", "column", "number", "middle"];

#[test]
fn primitives_and_losses_match() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/primitives.safetensors");
    let fixture = Fixture { file: Checkpoint::open(path).unwrap(), run: RefCell::default() };
    functions_of_one_element(&fixture);
    functions_of_two_elements(&fixture);
    arrangements(&fixture);
    along_an_axis(&fixture);
    products(&fixture);
    losses(&fixture);
    let run = fixture.run.into_inner();
    let mut left: Vec<&str> = fixture.file.names().filter_map(|name| name.strip_suffix(".output")).collect();
    left.retain(|case| !run.iter().any(|run| run == case));
    assert!(left.is_empty(), "not compared: {left:?}");
}

fn functions_of_one_element(fixture: &Fixture) {
    fixture.case("exp", |i| Ok(i.input().exp()));
    fixture.case("ln", |i| Ok(i.input().ln()));
    fixture.case("sqrt", |i| Ok(i.input().sqrt()));
    fixture.case("rsqrt", |i| Ok(i.input().rsqrt()));
    for exponent in [0.0f32, 1.0, 2.0, 3.0, -1.0, 0.5, 1.7, -2.3] {
        fixture.case(&format!("pow_{exponent:?}"), |i| Ok(i.input().pow(exponent)));
    }
    fixture.case("abs", |i| Ok(i.input().abs()));
    fixture.case("neg", |i| Ok(i.input().neg()));
    fixture.case("clamp", |i| i.input().clamp(-1.0, 1.0));
}

fn functions_of_two_elements(fixture: &Fixture) {
    type Function = fn(&Tensor, &Tensor) -> Result<Tensor>;
    let functions: [(&str, Function); 8] = [
        ("maximum", Tensor::maximum),
        ("minimum", Tensor::minimum),
        ("eq", Tensor::eq),
        ("ne", Tensor::ne),
        ("lt", Tensor::lt),
        ("le", Tensor::le),
        ("gt", Tensor::gt),
        ("ge", Tensor::ge),
    ];
    for shape in SHAPES {
        for (name, f) in functions {
            fixture.case(&format!("{name}_{shape}"), |i| f(i.x("input"), i.x("other")));
        }
        fixture.case(&format!("formula_{shape}"), |i| {
            let (a, b) = i.pair();
            Ok(2.0 - (a * b + 1.0) * (a - 0.5) / 3.0 - -b)
        });
        fixture.case(&format!("where_{shape}"), |i| where_(&i.constant("mask"), i.x("a"), i.x("b")));
    }
    fixture.case("masked_fill", |i| i.input().masked_fill(&i.constant("mask"), 2.5));
}

fn arrangements(fixture: &Fixture) {
    fixture.case("unsqueeze", |i| i.input().unsqueeze(-2));
    fixture.case("squeeze", |i| i.input().squeeze(1));
    fixture.case("expand", |i| i.input().expand(&[4, 2, 5, 3]));
    fixture.case("chunk", |i| concat(&i.input().chunk(3, 1)?.iter().rev().collect::<Vec<_>>(), 1));
    fixture.case("stack", |i| stack(&[i.x("a"), i.x("b"), i.x("a")], 1));
    fixture.case("concat", |i| concat(&[i.x("a"), i.x("b")], -1));
}

fn along_an_axis(fixture: &Fixture) {
    for axis in 0..3 {
        fixture.case(&format!("max_axis_{axis}"), |i| Ok(i.input().max_axis(axis)?.0));
        fixture.case(&format!("min_axis_{axis}"), |i| Ok(i.input().min_axis(axis)?.0));
        fixture.case(&format!("argmax_{axis}"), |i| Ok(as_tensor(&i.input().argmax(axis)?)));
        fixture.case(&format!("argmin_{axis}"), |i| Ok(as_tensor(&i.input().argmin(axis)?)));
        fixture.case(&format!("topk_{axis}"), |i| Ok(i.input().topk(2, axis)?.0));
        fixture.case(&format!("topk_indices_{axis}"), |i| Ok(as_tensor(&i.input().topk(2, axis)?.1)));
        fixture.case(&format!("cumsum_{axis}"), |i| i.input().cumsum(axis));
        fixture.case(&format!("norm_axis_{axis}"), |i| i.input().norm_axis(axis));
        fixture.case(&format!("log_sum_exp_{axis}"), |i| i.input().log_sum_exp(axis));
        fixture.case(&format!("gather_{axis}"), |i| i.input().gather(axis, &i.ids()));
        fixture.case(&format!("index_select_{axis}"), |i| i.input().index_select(axis, &i.ids()));
        fixture.case(&format!("scatter_add_{axis}"), |i| i.x("a").scatter_add(axis, &i.ids(), i.x("b")));
    }
    fixture.case("norm", |i| i.input().norm());
    fixture.case("norm_of_zeros", |i| i.input().norm());
    fixture.case("one_hot", |i| one_hot(&i.ids(), 4));
}

fn products(fixture: &Fixture) {
    for name in ["matrices", "one_left", "one_right", "crossed"] {
        fixture.case(&format!("matmul_{name}"), |i| i.x("input").matmul(i.x("other")));
    }
    let equations = ["ij,jk->ik", "ji,kj->ki", "bqhd,bkhd->bhqk", "bhqk,bkhd->bqhd", "i,j->ji", "bi,bi->b", "ij,ji->"];
    for equation in equations {
        fixture.case(&format!("einsum_{equation}"), |i| einsum(equation, i.x("a"), i.x("b")));
    }
}

/// Oord, Li and Vinyals 2018: each query against the keys of all others.
fn info_nce(queries: &Tensor, keys: &Tensor) -> Result<Tensor> {
    let (queries, keys) = (queries / queries.norm_axis(-1)?, keys / keys.norm_axis(-1)?);
    let similarity = queries.matmul_transposed(&keys)? / 0.1;
    let n = similarity.dim(0)?;
    let own = IdTensor::new((0..n as u32).collect::<Vec<_>>(), &[n, 1])?;
    (similarity.log_sum_exp(-1)? - similarity.gather(-1, &own)?).mean()
}

/// Hinton, Vinyals and Dean 2015: KL divergence from the teacher's distribution at a temperature.
fn distillation(student: &Tensor, teacher: &Tensor) -> Result<Tensor> {
    let temperature = 2.0;
    let log_probs = |logits: &Tensor| -> Result<Tensor> {
        let logits = logits / temperature;
        Ok(&logits - logits.log_sum_exp(-1)?)
    };
    let (student, teacher) = (log_probs(student)?, log_probs(teacher)?);
    let batch = student.dim(0)? as f32;
    Ok((teacher.exp() * (&teacher - &student)).sum()? * (temperature * temperature / batch))
}

/// Kingma and Welling 2013: squared error of the reconstruction, KL divergence from the normal
/// distribution.
fn vae(x: &Tensor, mean: &Tensor, log_variance: &Tensor, noise: &Tensor, decoder: &Tensor) -> Result<Tensor> {
    let z = mean + noise * (log_variance * 0.5).exp();
    let reconstruction = (z.matmul(decoder)?.sigmoid() - x).pow(2.0).sum_axis(-1)?;
    let kl = (1.0 + log_variance - mean.pow(2.0) - log_variance.exp()).sum_axis(-1)? * -0.5;
    (reconstruction + kl).mean()
}

fn losses(fixture: &Fixture) {
    fixture.case("info_nce", |i| info_nce(i.x("queries"), i.x("keys")));
    fixture.case("distillation", |i| distillation(i.x("student"), i.x("teacher")));
    fixture
        .case("vae", |i| vae(&i.constant("x"), i.x("mean"), i.x("log_variance"), &i.constant("noise"), i.x("decoder")));
}

/// Fake quantisation (Bengio, Léonard and Courville 2013): rounded forward, a straight-through
/// gradient within the range.
fn fake_quantise(x: &Tensor, scale: f32) -> Result<Tensor> {
    let rounded: Vec<f32> = x.data().iter().map(|x| (x / scale).round().clamp(-8.0, 7.0) * scale).collect();
    let inside = x.abs().le(&Tensor::scalar(7.0 * scale))?;
    let value = Tensor::from_vec(rounded, x.shape())?;
    Ok(custom_op("fake_quantise", &[x], value, move |dy| Ok(vec![Some(dy.mul(&inside)?)])))
}

/// sin x, with its derivative.
fn sin(x: &Tensor) -> Result<Tensor> {
    let map = |f: fn(f32) -> f32| Tensor::from_vec(x.data().iter().map(|&x| f(x)).collect(), x.shape());
    let cos = map(f32::cos)?;
    Ok(custom_op("sin", &[x], map(f32::sin)?, move |dy| Ok(vec![Some(dy.mul(&cos)?)])))
}

#[test]
fn operations_from_outside_the_crate_are_differentiated() {
    let x = Tensor::normal(&[2, 3], 1.0, &mut Rng::seed(1));
    gradient_check(std::slice::from_ref(&x), |x| Ok(sin(&x[0])? * &x[0])).unwrap();
    let x = Tensor::from_vec(vec![0.26, -0.74, 3.0], &[3]).unwrap().watch();
    let y = fake_quantise(&x, 0.25).unwrap();
    assert_eq!(y.to_vec(), [0.25, -0.75, 1.75]);
    assert_eq!(y.sum().unwrap().backward().unwrap().of(&x).unwrap().to_vec(), [1.0, 1.0, 0.0]);
}
