//! Sums over one batch of a layer's inputs and targets.

use crate::accumulate::samples;
use crate::ops::features_last;
use crate::{Error, Result};
use tch::{Kind, Tensor};
use zipit::graph::{Node, Op, Window};
use zipit::refit::{Design, Sums, names};

/// Samples that are summed in f32 before they are added in f64: the longer a sum in f32, the more of it is rounding.
const SAMPLES: i64 = 256;

/// What a batch's images give at a layer, or at several that are solved as one: what each reads, `[B, C, H, W]` or
/// `[B, F]`, and the target of all.
pub(super) struct Samples<'a> {
    pub read: Vec<(&'a Node, Tensor)>,
    pub y: Tensor,
}

/// What sums are counted from: x₀ `[G, F]` and y₀ `[G, O]`.
pub(super) type Origin = [Vec<f32>; 2];

/// Sums of one batch, as [`Sums::add`] takes them.
pub(super) struct Products {
    count: u64,
    origin: Origin,
    sums: [Vec<f64>; 5],
}

impl Samples<'_> {
    /// The means of this batch.
    pub fn origin(&self) -> Result<Origin> {
        let (x, y) = self.spread_out(None)?;
        let mean = |t: Tensor| floats(&t.f_mean_dim(1, true, Kind::Float)?.f_nan_to_num(0.0, 0.0, 0.0)?);
        Ok([mean(x)?, mean(y)?])
    }

    /// `[G, S, F]` and `[G, S, O]`, of some of the images or all.
    fn spread_out(&self, rows: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let of = |tensor: &Tensor| -> Result<Tensor> {
            Ok(rows.map_or_else(|| Ok(tensor.shallow_clone()), |rows| tensor.f_index_select(0, rows))?)
        };
        let each = self.read.iter().map(|(node, x)| inputs(&node.op, &of(x)?)).collect::<Result<Vec<_>>>()?;
        let design = Design::of(&self.read[0].0.op).expect("a layer with parameters");
        let x = if let [one] = &each[..] { one.shallow_clone() } else { Tensor::f_cat(&each, 2)? };
        Ok((x, targets(&design, &of(&self.y)?)?))
    }

    fn name(&self) -> String {
        names(self.read.iter().map(|(node, _)| *node))
    }

    /// The sums over some of the images.
    ///
    /// # Errors
    /// Numbers that are not finite.
    pub fn products(&self, rows: &Tensor, origin: &Origin, batch: usize) -> Result<Products> {
        let (x, y) = self.spread_out(Some(rows))?;
        let (g, n, f) = x.size3()?;
        let o = y.size()[2];
        let like = |numbers: &[f32], t: &Tensor| -> Result<Tensor> {
            Ok(Tensor::f_from_slice(numbers)?.f_reshape([g, 1, -1])?.f_to_device(t.device())?)
        };
        let (x0, y0) = (like(&origin[0], &x)?, like(&origin[1], &y)?);
        let shapes: [&[i64]; 5] = [&[g, f], &[g, o], &[g, f, f], &[g, o, f], &[g, o]];
        let sums = summed(n, shapes, x.device(), |from, length| {
            let x = x.f_narrow(1, from, length)?.f_sub(&x0)?;
            let y = y.f_narrow(1, from, length)?.f_sub(&y0)?;
            let xx = if g == 1 {
                symmetric(&x.f_squeeze_dim(0)?, f)?.f_unsqueeze(0)?
            } else {
                x.f_transpose(1, 2)?.f_matmul(&x)?
            };
            Ok([
                x.f_sum_dim_intlist(1, false, Kind::Float)?,
                y.f_sum_dim_intlist(1, false, Kind::Float)?,
                xx,
                y.f_transpose(1, 2)?.f_matmul(&x)?,
                y.f_square()?.f_sum_dim_intlist(1, false, Kind::Float)?,
            ])
        })?;
        finite(&sums, &self.name(), batch)?;
        Ok(Products { count: n as u64, origin: origin.clone(), sums })
    }
}

/// Sums of one batch's residuals, as [`Residuals::add`](zipit::refit::Residuals::add) takes them.
pub(super) struct Cross {
    pub count: u64,
    pub sums: [Vec<f64>; 3],
}

impl Samples<'_> {
    /// The sums over some of the images of y, a residual, with x counted from x₀.
    ///
    /// # Errors
    /// Numbers that are not finite.
    pub fn cross(&self, rows: &Tensor, origin: &[f32], batch: usize) -> Result<Cross> {
        let (x, r) = self.spread_out(Some(rows))?;
        let (g, n, f) = x.size3()?;
        let o = r.size()[2];
        let x0 = Tensor::f_from_slice(origin)?.f_reshape([g, 1, f])?.f_to_device(x.device())?;
        let shapes: [&[i64]; 3] = [&[g, o], &[g, o, f], &[g, o]];
        let sums = summed(n, shapes, x.device(), |from, length| {
            let x = x.f_narrow(1, from, length)?.f_sub(&x0)?;
            let r = r.f_narrow(1, from, length)?;
            Ok([
                r.f_sum_dim_intlist(1, false, Kind::Float)?,
                r.f_transpose(1, 2)?.f_matmul(&x)?,
                r.f_square()?.f_sum_dim_intlist(1, false, Kind::Float)?,
            ])
        })?;
        finite(&sums, &self.name(), batch)?;
        Ok(Cross { count: n as u64, sums })
    }
}

/// Sums of n samples in f64, of what some of them, from one on so many, sum up to in f32.
fn summed<const K: usize>(
    n: i64,
    shapes: [&[i64]; K],
    device: tch::Device,
    part: impl Fn(i64, i64) -> Result<[Tensor; K]>,
) -> Result<[Vec<f64>; K]> {
    let mut sums = Vec::with_capacity(K);
    for shape in shapes {
        sums.push(Tensor::f_zeros(shape, (Kind::Double, device))?);
    }
    for from in (0..n).step_by(SAMPLES as usize) {
        for (sum, part) in sums.iter_mut().zip(&part(from, SAMPLES.min(n - from))?) {
            let _ = sum.f_add_(part)?;
        }
    }
    let sums: Vec<Vec<f64>> = sums.iter().map(numbers).collect::<Result<_>>()?;
    Ok(sums.try_into().expect("as many as there are shapes"))
}

/// # Errors
/// Sums that are not finite.
fn finite(sums: &[Vec<f64>], name: &str, batch: usize) -> Result<()> {
    if sums.iter().flatten().all(|s| s.is_finite()) {
        return Ok(());
    }
    Err(Error::NotFinite(format!(
        "`{name}`, batch {batch}: its inputs or targets are NaN or too large; check the models' weights and their \
         BatchNorm statistics"
    )))
}

impl Products {
    pub(super) fn add_to(&self, sums: &mut Sums) {
        let [x, y] = &self.origin;
        let [a, b, c, d, e] = self.sums.each_ref().map(Vec::as_slice);
        sums.add(self.count, [x, y], [a, b, c, d, e]);
    }
}

/// Sums of one batch of a merged value and of the models' values there, as [`Spread::add`](zipit::refit::Spread::add)
/// takes them.
pub(super) struct Moments {
    pub count: u64,
    pub sums: [Vec<f64>; 4],
}

/// # Errors
/// Numbers that are not finite.
pub(super) fn moments(value: &Tensor, models: &[Tensor], name: &str, batch: usize) -> Result<Moments> {
    let both = |value: &Tensor| -> Result<[Vec<f64>; 2]> {
        let value = value.f_to_kind(Kind::Double)?;
        let sum = |of: Tensor| -> Result<Vec<f64>> { numbers(&of.f_sum_dim_intlist(0, false, Kind::Double)?) };
        Ok([sum(value.shallow_clone())?, sum(value.f_square()?)?])
    };
    let value = samples(value)?;
    let [sum, squares] = both(&value)?;
    let [mut own, mut own_squares] = [vec![], vec![]];
    for model in models {
        let [a, b] = both(&samples(model)?)?;
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
            Ok(x.f_transpose(0, 1)?.f_reshape([c, -1, 1])?)
        }
        _ => Ok(samples(x)?.f_unsqueeze(0)?),
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

/// `[G, S, O]` of `[B, G·O, …]`.
fn targets(design: &Design, y: &Tensor) -> Result<Tensor> {
    let (g, o) = (design.n_groups as i64, design.n_outputs as i64);
    let split = features_last(y)?.f_reshape([-1, g, o])?;
    Ok(split.f_transpose(0, 1)?.f_contiguous()?)
}

fn floats(tensor: &Tensor) -> Result<Vec<f32>> {
    numbers(tensor)
}

fn numbers<T: tch::kind::Element + Default + Clone>(tensor: &Tensor) -> Result<Vec<T>> {
    let tensor = tensor.f_to_device(tch::Device::Cpu)?.f_contiguous()?;
    let mut values = vec![T::default(); tensor.numel()];
    let n = values.len();
    tensor.f_copy_data(&mut values, n)?;
    Ok(values)
}
