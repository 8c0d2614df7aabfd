//! A training step of a character GPT in candle, for `benches/report`: reads lines with a recipe
//! from standard input and prints the seconds of a step for each: forward, backward, AdamW; the
//! gradients are not clipped.

use std::io::BufRead;
use std::time::Instant;

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::{
    AdamW, Embedding, LayerNorm, Linear, Module, Optimizer, ParamsAdamW, VarBuilder, VarMap, embedding, layer_norm,
    linear, linear_no_bias, loss, ops,
};

const DEVICE: Device = Device::Cpu;
const VOCABULARY: usize = 65;

struct Block {
    norms: [LayerNorm; 2],
    qkv: Linear,
    out: Linear,
    up: Linear,
    down: Linear,
}

struct Gpt {
    tokens: Embedding,
    positions: Embedding,
    blocks: Vec<Block>,
    norm: LayerNorm,
    head: Linear,
    heads: usize,
    mask: Tensor,
}

/// The `forward` of candle's layer stops gradients: with it one parameter of 53 gets a gradient.
fn normalise(norm: &LayerNorm, x: &Tensor) -> Result<Tensor> {
    ops::layer_norm_slow(x, norm.weight(), norm.bias().expect("made with one"), 1e-5)
}

impl Gpt {
    fn new(layers: usize, heads: usize, dim: usize, context: usize, vb: VarBuilder) -> Result<Self> {
        let block = |i: usize| {
            let vb = vb.pp(i);
            Ok(Block {
                norms: [layer_norm(dim, 1e-5, vb.pp("n1"))?, layer_norm(dim, 1e-5, vb.pp("n2"))?],
                qkv: linear(dim, 3 * dim, vb.pp("qkv"))?,
                out: linear(dim, dim, vb.pp("out"))?,
                up: linear(dim, 4 * dim, vb.pp("up"))?,
                down: linear(4 * dim, dim, vb.pp("down"))?,
            })
        };
        let hidden: Vec<f32> = (0..context * context)
            .map(|i| if i % context > i / context { f32::NEG_INFINITY } else { 0.0 })
            .collect();
        Ok(Self {
            tokens: embedding(VOCABULARY, dim, vb.pp("wte"))?,
            positions: embedding(context, dim, vb.pp("wpe"))?,
            blocks: (0..layers).map(block).collect::<Result<_>>()?,
            norm: layer_norm(dim, 1e-5, vb.pp("norm"))?,
            head: linear_no_bias(dim, VOCABULARY, vb.pp("head"))?,
            heads,
            mask: Tensor::from_vec(hidden, (context, context), &DEVICE)?,
        })
    }

    fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        let (batch, len) = ids.dims2()?;
        let positions = self.positions.forward(&Tensor::arange(0, len as u32, &DEVICE)?)?;
        let mut x = self.tokens.forward(ids)?.broadcast_add(&positions)?;
        let dim = x.dim(D::Minus1)?;
        for block in &self.blocks {
            let qkv = block.qkv.forward(&normalise(&block.norms[0], &x)?)?;
            let part = |i: usize| {
                let part = qkv.narrow(D::Minus1, i * dim, dim)?;
                part.reshape((batch, len, self.heads, dim / self.heads))?.transpose(1, 2)?.contiguous()
            };
            let (q, k, v) = (part(0)?, part(1)?, part(2)?);
            let scale = ((dim / self.heads) as f64).powf(-0.5);
            let scores = (q.matmul(&k.t()?.contiguous()?)? * scale)?.broadcast_add(&self.mask)?;
            let y = ops::softmax(&scores, D::Minus1)?.matmul(&v)?;
            let y = y.transpose(1, 2)?.reshape((batch, len, dim))?;
            x = (x + block.out.forward(&y)?)?;
            let up = block.up.forward(&normalise(&block.norms[1], &x)?)?.gelu_erf()?;
            x = (x + block.down.forward(&up)?)?;
        }
        self.head.forward(&normalise(&self.norm, &x)?)
    }
}

fn main() -> Result<()> {
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("the standard input is text");
        // Layers, heads, width, context, batch.
        let (layers, heads, dim, context, batch) = match line.as_str() {
            "cpu" => (4, 4, 128, 64, 12),
            "small" => (6, 6, 384, 256, 12),
            other => panic!("expected cpu or small, found `{other}`"),
        };
        let vars = VarMap::new();
        let model = Gpt::new(layers, heads, dim, context, VarBuilder::from_varmap(&vars, DType::F32, &DEVICE))?;
        let params = ParamsAdamW { lr: 1e-3, beta1: 0.9, beta2: 0.99, weight_decay: 0.1, ..ParamsAdamW::default() };
        let mut optimizer = AdamW::new(vars.all_vars(), params)?;
        let ids = |step: usize| -> Result<Tensor> {
            let ids: Vec<u32> = (0..batch * context).map(|i| (i * step % VOCABULARY) as u32).collect();
            Tensor::from_vec(ids, (batch, context), &DEVICE)
        };
        let (x, y) = (ids(7)?, ids(11)?.flatten_all()?);
        let mut step = || -> Result<f64> {
            let start = Instant::now();
            let loss = loss::cross_entropy(&model.forward(&x)?.flatten_to(1)?, &y)?;
            optimizer.backward_step(&loss)?;
            std::hint::black_box(loss.to_scalar::<f32>()?);
            Ok(start.elapsed().as_secs_f64())
        };
        let gradients = loss::cross_entropy(&model.forward(&x)?.flatten_to(1)?, &y)?.backward()?;
        assert!(vars.all_vars().iter().all(|var| gradients.get(var).is_some()), "every parameter is trained");
        let mut times = [step()?, step()?, step()?];
        times.sort_by(f64::total_cmp);
        println!("{:e}", times[1]);
    }
    Ok(())
}
