//! Sums over one batch of a layer's inputs and targets.

use crate::{Error, Result};
use tch::{Kind, Tensor};
use zipit::graph::{Op, Window};
use zipit::refit::{Design, Sums};

/// Samples that are summed in f32 before they are added in f64.
const SAMPLES: i64 = 4096;

/// Sums of one batch, as [`Sums::add`] takes them, in f64.
pub(super) struct Products {
    count: u64,
    sums: [Vec<f32>; 5],
}

/// The sums of the images `x` that a layer reads, `[B, C, H, W]` or `[B, F]`, and of its targets `y`, piece by piece.
///
/// # Errors
/// Numbers that are not finite.
pub(super) fn products(op: &Op, x: &Tensor, y: &Tensor, layer: &str, batch: usize) -> Result<Vec<Products>> {
    let design = Design::of(op).expect("a layer with parameters");
    let (x, y) = (inputs(op, x)?, targets(&design, y)?);
    let n = x.size()[1];
    (0..n).step_by(SAMPLES as usize).map(|from| {
        let length = SAMPLES.min(n - from);
        let products = Products::of(&x.f_narrow(1, from, length)?, &y.f_narrow(1, from, length)?)?;
        match products.sums.iter().find(|sum| sum.iter().any(|s| !s.is_finite())) {
            None => Ok(products),
            Some(_) => Err(Error::NotFinite(format!(
                "`{layer}`, batch {batch}: its inputs or targets are NaN or too large; check the models' weights and \
                 their BatchNorm statistics"
            ))),
        }
    }).collect()
}

impl Products {
    /// Of x `[G, S, F]` and y `[G, S, O]`.
    fn of(x: &Tensor, y: &Tensor) -> Result<Self> {
        let (g, n, f) = x.size3()?;
        let xx = if g == 1 { symmetric(&x.f_squeeze_dim(0)?, f)? } else { x.f_transpose(1, 2)?.f_matmul(x)? };
        let sums = [
            x.f_sum_dim_intlist(1, false, Kind::Float)?,
            y.f_sum_dim_intlist(1, false, Kind::Float)?,
            xx,
            y.f_transpose(1, 2)?.f_matmul(x)?,
            y.f_square()?.f_sum_dim_intlist(1, false, Kind::Float)?,
        ];
        let [a, b, c, d, e] = sums.each_ref().map(floats);
        Ok(Self { count: n as u64, sums: [a?, b?, c?, d?, e?] })
    }

    pub(super) fn add_to(&self, sums: &mut Sums) {
        let [a, b, c, d, e] = self.sums.each_ref().map(Vec::as_slice);
        sums.add(self.count, [a, b, c, d, e]);
    }
}

/// Sums of one batch of a merged value and of the models' values there, as [`Spread::add`](zipit::refit::Spread::add)
/// takes them.
pub(super) struct Moments {
    pub count: u64,
    pub sums: [Vec<f32>; 4],
}

/// # Errors
/// Numbers that are not finite.
pub(super) fn moments(value: &Tensor, models: &[Tensor], name: &str, batch: usize) -> Result<Moments> {
    let last = |value: &Tensor| -> Result<Tensor> {
        let c = value.size()[1];
        let last = if value.dim() == 4 { value.f_permute([0, 2, 3, 1])? } else { value.shallow_clone() };
        Ok(last.f_reshape([-1, c])?)
    };
    let both = |value: &Tensor| -> Result<[Vec<f32>; 2]> {
        let sum = value.f_sum_dim_intlist(0, false, Kind::Float)?;
        Ok([floats(&sum)?, floats(&value.f_square()?.f_sum_dim_intlist(0, false, Kind::Float)?)?])
    };
    let value = last(value)?;
    let [sum, squares] = both(&value)?;
    let [mut own, mut own_squares] = [vec![], vec![]];
    for model in models {
        let [a, b] = both(&last(model)?)?;
        own.extend(a);
        own_squares.extend(b);
    }
    let sums = [sum, squares, own, own_squares];
    if sums.iter().flatten().any(|x| !x.is_finite()) {
        return Err(Error::NotFinite(format!(
            "`{name}`, batch {batch}: its features are NaN or too large; check the models' weights and their BatchNorm \
             statistics"
        )));
    }
    Ok(Moments { count: value.size()[0] as u64, sums })
}

/// `XᵀX` of X `[S, F]`, the upper triangle.
fn symmetric(x: &Tensor, f: i64) -> Result<Tensor> {
    let transposed = x.f_tr()?;
    let product = Tensor::f_zeros([f, f], (Kind::Float, x.device()))?;
    let strip = (f / 8).max(64);
    for from in (0..f).step_by(strip as usize) {
        let height = strip.min(f - from);
        let block = product.f_narrow(0, from, height)?.f_narrow(1, from, f - from)?;
        let _ = transposed.f_narrow(0, from, height)?.f_mm_out(&block, &x.f_narrow(1, from, f - from)?)?;
    }
    Ok(product)
}

/// What each output of a layer is a sum of, `[G, S, F]`: patches for a convolution.
fn inputs(op: &Op, x: &Tensor) -> Result<Tensor> {
    match op {
        Op::Conv2d { window, groups, .. } => patches(x, window, *groups as i64),
        Op::BatchNorm2d { .. } => {
            let c = x.size()[1];
            Ok(x.f_permute([1, 0, 2, 3])?.f_reshape([c, -1, 1])?)
        }
        _ => Ok(x.f_unsqueeze(0)?),
    }
}

/// `[G, S, kH·kW·I/G]` of `[B, I, H, W]`, S = B·H'·W'.
pub(crate) fn patches(x: &Tensor, window: &Window, groups: i64) -> Result<Tensor> {
    let [ph, pw] = window.padding.map(|p| p as i64);
    let mut padded = x.f_permute([0, 2, 3, 1])?;
    if ph + pw > 0 {
        padded = padded.f_constant_pad_nd([0, 0, pw, pw, ph, ph])?;
    }
    let [kh, kw] = window.kernel.map(|k| k as i64);
    let [sh, sw] = window.stride.map(|s| s as i64);
    let [dh, dw] = window.dilation.map(|d| d as i64);
    let (span_h, span_w) = ((kh - 1) * dh + 1, (kw - 1) * dw + 1);
    let seen = padded.f_unfold(1, span_h, sh)?.f_unfold(2, span_w, sw)?;
    let seen = seen.f_slice(4, 0, span_h, dh)?.f_slice(5, 0, span_w, dw)?;
    let (c, positions) = (x.size()[1], kh * kw);
    let last = seen.f_permute([0, 1, 2, 4, 5, 3])?;
    if groups == 1 {
        return Ok(last.f_reshape([1, -1, positions * c])?);
    }
    let split = last.f_reshape([-1, positions, groups, c / groups])?;
    Ok(split.f_permute([2, 0, 1, 3])?.f_reshape([groups, -1, positions * c / groups])?)
}

/// `[G, S, O]` of `[B, G·O, H, W]` or `[B, O]`.
fn targets(design: &Design, y: &Tensor) -> Result<Tensor> {
    let (g, o) = (design.n_groups as i64, design.n_outputs as i64);
    let last = if y.dim() == 4 { y.f_permute([0, 2, 3, 1])? } else { y.shallow_clone() };
    let split = last.f_reshape([-1, g, o])?;
    Ok(split.f_transpose(0, 1)?.f_contiguous()?)
}

fn floats(tensor: &Tensor) -> Result<Vec<f32>> {
    let tensor = tensor.f_to_device(tch::Device::Cpu)?.f_contiguous()?;
    let mut values = vec![0.0; tensor.numel()];
    let n = values.len();
    tensor.f_copy_data(&mut values, n)?;
    Ok(values)
}
