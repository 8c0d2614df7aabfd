//! Steps of SGD, Adam and AdamW, each in one pass over memory.
//!
//! The semantics, and the order of operations, are those of `torch.optim` (`SGD`, `Adam`, `AdamW`).
//! Adam is Kingma and Ba, 2014 (arXiv:1412.6980), AdamW Loshchilov and Hutter, 2017
//! (arXiv:1711.05101), AMSGrad Reddi, Kale and Kumar, 2018 (arXiv:1904.09237).
//!
//! Each step first multiplies the gradient by `grad_scale`, so that clipping by norm needs no extra
//! pass.

use crate::kernels::parallel::{self, Parts};
use crate::kernels::simd::{Isa, SimdOp, dispatch};

/// Settings of [`sgd_step`], like those of `torch.optim.SGD`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    /// Learning rate.
    pub lr: f64,
    /// The momentum factor, in [0, 1).
    pub momentum: f64,
    /// The dampening of the momentum, in [0, 1]; 0 in the first step.
    pub dampening: f64,
    /// The weight decay, times the parameter added to the gradient.
    pub weight_decay: f64,
    /// Whether to use Nesterov momentum.
    pub nesterov: bool,
}

/// Settings of [`adam_step`], like those of `torch.optim.Adam` and `AdamW`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// Learning rate.
    pub lr: f64,
    /// The decay rates of the first and the second moment.
    pub betas: (f64, f64),
    /// Added to the square root of the second moment.
    pub eps: f64,
    /// The weight decay: subtracted from the parameter if `decoupled`, otherwise added to the
    /// gradient.
    pub weight_decay: f64,
    /// Whether weight decay is decoupled from the gradient (AdamW).
    pub decoupled: bool,
}

/// Computes one step of SGD. `momentum` is the momentum buffer, zero before the first step; empty
/// if `sgd.momentum` is 0.
///
/// # Shapes
///
/// All of the same length; `momentum` may be empty.
pub fn sgd_step(sgd: &Sgd, grad_scale: f32, param: &mut [f32], grad: &[f32], momentum: &mut [f32]) {
    let len = param.len();
    assert_eq!(grad.len(), len, "sgd_step: one gradient for each parameter");
    assert!(
        momentum.len() == len || (momentum.is_empty() && sgd.momentum == 0.0),
        "sgd_step: one momentum for each parameter"
    );
    let chunk = parallel::chunk_len(len, 16, 4.0);
    let (param, momentum) = (Parts::new(param, chunk), Parts::new(momentum, chunk));
    parallel::for_each(param.count(), |i| {
        let grad = &grad[param.range(i)];
        // SAFETY: each task takes the parts with its own index.
        let (param, momentum) = unsafe { (param.get(i), momentum.get(i)) };
        dispatch(SgdStep { sgd, grad_scale, param, grad, momentum });
    });
}

/// Computes one step of Adam or AdamW; `step` counts from 1. `m` and `v` are the moments, zero
/// before the first step. `v_max` is the largest `v` so far, also zero before the first step, which
/// is used instead of `v` (AMSGrad) unless it is empty.
///
/// # Shapes
///
/// All of the same length; `v_max` may be empty.
///
/// # Panics
///
/// If `step` is 0.
pub fn adam_step(
    adam: &Adam,
    step: u64,
    grad_scale: f32,
    param: &mut [f32],
    grad: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    v_max: &mut [f32],
) {
    let len = param.len();
    assert!(v_max.is_empty() || v_max.len() == len, "adam_step: one largest moment for each parameter, or none");
    assert!(step > 0, "adam_step: steps count from 1");
    assert!(grad.len() == len && m.len() == len && v.len() == len, "adam_step: all must have the same length");
    let power = step as f64;
    let (bias1, bias2) = (1.0 - adam.betas.0.powf(power), 1.0 - adam.betas.1.powf(power));
    let constants = AdamConstants {
        grad_scale,
        decay: if adam.decoupled { (1.0 - adam.lr * adam.weight_decay) as f32 } else { 1.0 },
        l2: if adam.decoupled { 0.0 } else { adam.weight_decay as f32 },
        one_minus_beta1: (1.0 - adam.betas.0) as f32,
        beta2: adam.betas.1 as f32,
        one_minus_beta2: (1.0 - adam.betas.1) as f32,
        bias2_root: bias2.sqrt() as f32,
        eps: adam.eps as f32,
        step_size: (adam.lr / bias1) as f32,
    };
    let chunk = parallel::chunk_len(len, 16, 12.0);
    let (param, m, v) = (Parts::new(param, chunk), Parts::new(m, chunk), Parts::new(v, chunk));
    let v_max = Parts::new(v_max, chunk);
    parallel::for_each(param.count(), |i| {
        let grad = &grad[param.range(i)];
        // SAFETY: each task takes the parts with its own index.
        let (param, m, v, v_max) = unsafe { (param.get(i), m.get(i), v.get(i), v_max.get(i)) };
        dispatch(AdamStep { constants, param, grad, m, v, v_max });
    });
}

struct SgdStep<'a> {
    sgd: &'a Sgd,
    grad_scale: f32,
    param: &'a mut [f32],
    grad: &'a [f32],
    momentum: &'a mut [f32],
}

impl SimdOp for SgdStep<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let c = SgdConstants {
            grad_scale: self.grad_scale,
            lr: self.sgd.lr as f32,
            decay: self.sgd.weight_decay as f32,
            momentum: self.sgd.momentum as f32,
            kept: (1.0 - self.sgd.dampening) as f32,
            nesterov: self.sgd.nesterov,
        };
        if self.momentum.is_empty() {
            let c = SgdConstants { kept: 1.0, ..c };
            for (p, g) in self.param.chunks_mut(I::LANES).zip(self.grad.chunks(I::LANES)) {
                let (new_p, _) = c.lanes(isa, isa.load_partial(p), isa.load_partial(g), isa.zero());
                isa.store_partial(p, new_p);
            }
            return;
        }
        let rows = self.param.chunks_mut(I::LANES).zip(self.grad.chunks(I::LANES));
        for ((p, g), b) in rows.zip(self.momentum.chunks_mut(I::LANES)) {
            let (new_p, new_b) = c.lanes(isa, isa.load_partial(p), isa.load_partial(g), isa.load_partial(b));
            isa.store_partial(b, new_b);
            isa.store_partial(p, new_p);
        }
    }
}

#[derive(Clone, Copy)]
struct SgdConstants {
    grad_scale: f32,
    lr: f32,
    decay: f32,
    momentum: f32,
    /// 1 - dampening
    kept: f32,
    nesterov: bool,
}

impl SgdConstants {
    /// Returns the new parameter and momentum.
    #[inline(always)]
    fn lanes<I: Isa>(self, isa: I, p: I::F32, g: I::F32, b: I::F32) -> (I::F32, I::F32) {
        let g = isa.mul_add(isa.splat(self.decay), p, isa.mul(g, isa.splat(self.grad_scale)));
        let b = isa.mul_add(isa.splat(self.momentum), b, isa.mul(g, isa.splat(self.kept)));
        let direction = if self.nesterov { isa.mul_add(isa.splat(self.momentum), b, g) } else { b };
        (isa.neg_mul_add(isa.splat(self.lr), direction, p), b)
    }
}

/// Constants that are the same for all elements, computed in double precision.
#[derive(Clone, Copy)]
struct AdamConstants {
    grad_scale: f32,
    decay: f32,
    l2: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    bias2_root: f32,
    eps: f32,
    step_size: f32,
}

impl AdamConstants {
    /// Returns the new parameter and moments, and the largest second moment so far, which is the
    /// divisor if there was one.
    #[inline(always)]
    fn lanes<I: Isa>(self, isa: I, [p, g, m, v]: [I::F32; 4], v_max: Option<I::F32>) -> [I::F32; 4] {
        let g = isa.mul_add(isa.splat(self.l2), p, isa.mul(g, isa.splat(self.grad_scale)));
        let p = isa.mul(p, isa.splat(self.decay));
        let m = isa.mul_add(isa.splat(self.one_minus_beta1), isa.sub(g, m), m);
        let v = isa.mul_add(isa.mul(g, isa.splat(self.one_minus_beta2)), g, isa.mul(v, isa.splat(self.beta2)));
        let largest = match v_max {
            Some(v_max) => isa.max(v_max, v),
            None => v,
        };
        let root = isa.add(isa.div(isa.sqrt(largest), isa.splat(self.bias2_root)), isa.splat(self.eps));
        [isa.neg_mul_add(isa.splat(self.step_size), isa.div(m, root), p), m, v, largest]
    }
}

struct AdamStep<'a> {
    constants: AdamConstants,
    param: &'a mut [f32],
    grad: &'a [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
    /// May be empty.
    v_max: &'a mut [f32],
}

impl SimdOp for AdamStep<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let c = self.constants;
        let moments = self.m.chunks_mut(I::LANES).zip(self.v.chunks_mut(I::LANES));
        if !self.v_max.is_empty() {
            let rows = self.param.chunks_mut(I::LANES).zip(self.grad.chunks(I::LANES)).zip(moments);
            for (((p, g), (m, v)), v_max) in rows.zip(self.v_max.chunks_mut(I::LANES)) {
                let old = [isa.load_partial(p), isa.load_partial(g), isa.load_partial(m), isa.load_partial(v)];
                let [new_p, new_m, new_v, largest] = c.lanes(isa, old, Some(isa.load_partial(v_max)));
                isa.store_partial(p, new_p);
                isa.store_partial(m, new_m);
                isa.store_partial(v, new_v);
                isa.store_partial(v_max, largest);
            }
            return;
        }
        for ((p, g), (m, v)) in self.param.chunks_mut(I::LANES).zip(self.grad.chunks(I::LANES)).zip(moments) {
            if p.len() == I::LANES {
                let old = [isa.load(p), isa.load(g), isa.load(m), isa.load(v)];
                let [new_p, new_m, new_v, _] = c.lanes(isa, old, None);
                isa.store(p, new_p);
                isa.store(m, new_m);
                isa.store(v, new_v);
            } else {
                let old = [isa.load_partial(p), isa.load_partial(g), isa.load_partial(m), isa.load_partial(v)];
                let [new_p, new_m, new_v, _] = c.lanes(isa, old, None);
                isa.store_partial(p, new_p);
                isa.store_partial(m, new_m);
                isa.store_partial(v, new_v);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{LENGTHS, assert_close, random};
    use super::*;
    use crate::kernels::simd::for_each_level;

    #[test]
    fn ten_steps_of_sgd_match_the_formula() {
        for_each_level(|_| {
            for (momentum, nesterov, dampening) in
                [(0.0, false, 0.0), (0.9, false, 0.0), (0.9, true, 0.0), (0.9, false, 0.25), (0.0, false, 0.5)]
            {
                for len in LENGTHS {
                    let mut sgd = Sgd { lr: 0.1, momentum, dampening: 0.0, weight_decay: 0.01, nesterov };
                    let mut p = random(len, 1);
                    let mut expected: Vec<f64> = p.iter().map(|&p| p as f64).collect();
                    let mut buffer = vec![0.0; if momentum > 0.0 { len } else { 0 }];
                    let mut b = vec![0.0; len];
                    for step in 0..10 {
                        let g = random(len, 100 + step);
                        sgd.dampening = if step == 0 { 0.0 } else { dampening };
                        sgd_step(&sgd, 0.5, &mut p, &g, &mut buffer);
                        for i in 0..len {
                            let g = 0.5 * g[i] as f64 + 0.01 * expected[i];
                            b[i] = momentum * b[i] + if momentum == 0.0 { g } else { (1.0 - sgd.dampening) * g };
                            expected[i] -= 0.1 * if nesterov { g + momentum * b[i] } else { b[i] };
                        }
                    }
                    let expected: Vec<f32> = expected.iter().map(|&p| p as f32).collect();
                    assert_close(&p, &expected, 1e-6);
                }
            }
        });
    }

    #[test]
    fn ten_steps_of_adam_match_the_formula() {
        for_each_level(|_| {
            for (decoupled, amsgrad) in [(false, false), (true, false), (false, true), (true, true)] {
                for len in LENGTHS {
                    let adam = Adam { lr: 0.01, betas: (0.9, 0.99), eps: 1e-8, weight_decay: 0.1, decoupled };
                    let mut p = random(len, 1);
                    let mut expected: Vec<f64> = p.iter().map(|&p| p as f64).collect();
                    let (mut m, mut v) = (vec![0.0; len], vec![0.0; len]);
                    let mut v_max = vec![0.0; if amsgrad { len } else { 0 }];
                    let (mut m64, mut v64, mut largest) = (vec![0.0; len], vec![0.0; len], vec![0.0f64; len]);
                    for step in 1..=10 {
                        // Decreasing, so that the largest moment is not the last.
                        let g: Vec<f32> = random(len, 100 + step).iter().map(|g| g / (step * step) as f32).collect();
                        adam_step(&adam, step as u64, 0.5, &mut p, &g, &mut m, &mut v, &mut v_max);
                        for i in 0..len {
                            let mut g = 0.5 * g[i] as f64;
                            if decoupled {
                                expected[i] *= 1.0 - 0.01 * 0.1;
                            } else {
                                g += 0.1 * expected[i];
                            }
                            m64[i] = 0.9 * m64[i] + 0.1 * g;
                            v64[i] = 0.99 * v64[i] + 0.01 * g * g;
                            let m = m64[i] / (1.0 - 0.9f64.powi(step as i32));
                            largest[i] = if amsgrad { largest[i].max(v64[i]) } else { v64[i] };
                            let v = largest[i] / (1.0 - 0.99f64.powi(step as i32));
                            expected[i] -= 0.01 * m / (v.sqrt() + 1e-8);
                        }
                    }
                    let expected: Vec<f32> = expected.iter().map(|&p| p as f32).collect();
                    assert_close(&p, &expected, 1e-5);
                }
            }
        });
    }
}
