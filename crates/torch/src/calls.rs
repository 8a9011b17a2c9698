//! Functions of tensors that are run and not followed.

use crate::ops;
use tch::{Kind, TchError, Tensor};
use zipit::graph::{Call, Combination, Function, Length, Padding, Reduction, Resampling};

type Computed = Result<Tensor, TchError>;

/// Computes a call for so many images.
pub(crate) fn compute(call: &Call, inputs: &[&Tensor], n_images: i64) -> Computed {
    let first = inputs[0];
    let rest = || inputs[1..].iter().copied();
    let optional = |at: usize, there: bool| there.then(|| inputs[at]);
    match call {
        Call::Reshape { shape } => first.f_reshape(lengths(shape, n_images)),
        Call::Expand { shape } => first.f_expand(lengths(shape, n_images), false),
        Call::Permute { dims } => first.f_permute(many(dims)),
        Call::Slice { dim, start, end, step } => {
            first.f_slice(one(*dim), one(*start), length(end, n_images), one(*step))
        }
        Call::Cat { dim } => Tensor::f_cat(inputs, one(*dim)),
        Call::Roll { shifts, dims } => first.f_roll(shifts, many(dims)),
        Call::Flip { dims } => first.f_flip(many(dims)),
        Call::Index { of } => {
            let mut given = rest();
            let indices = of.iter().map(|there| there.then(|| given.next()).flatten().map(to_index).transpose());
            first.f_index(&indices.collect::<Result<Vec<_>, _>>()?)
        }
        Call::Gather { dim } => first.f_gather(one(*dim), &to_index(inputs[1])?, false),
        Call::Pad { pad, mode, value } => padded(first, pad, *mode, *value),
        Call::Matmul => first.f_matmul(inputs[1]),
        Call::Einsum { equation } => Tensor::f_einsum(equation, inputs, None::<&[i64]>),
        Call::Linear { bias } => first.f_linear(inputs[1], optional(2, *bias)),
        Call::Convolution { stride, padding, dilation, transposed, output_padding, groups, bias } => first
            .f_convolution(
                inputs[1],
                optional(2, *bias),
                many(stride),
                many(padding),
                many(dilation),
                *transposed,
                many(output_padding),
                length(groups, n_images),
            ),
        Call::Attention { scale, causal, mask, grouped } => Tensor::f_scaled_dot_product_attention(
            first,
            inputs[1],
            inputs[2],
            optional(3, *mask),
            0.0,
            *causal,
            *scale,
            *grouped,
        ),
        Call::Softmax { dim } => first.f_softmax(one(*dim), None::<Kind>),
        Call::LogSoftmax { dim } => first.f_log_softmax(one(*dim), None::<Kind>),
        Call::Reduce { function, dims, keepdim } => reduced(first, *function, &many(dims), *keepdim),
        Call::Cumsum { dim } => first.f_cumsum(one(*dim), None::<Kind>),
        Call::Map { function } => mapped(first, *function),
        Call::Relu => first.f_relu(),
        Call::Activate { function } => ops::activation(first, *function),
        Call::Affine { scale, shift } => first.f_mul_scalar(*scale)?.f_add_scalar(*shift),
        Call::Power { exponent } => first.f_pow_tensor_scalar(*exponent),
        Call::Clamp { min, max } => {
            let low = min.map_or_else(|| Ok(first.shallow_clone()), |min| first.f_clamp_min(min))?;
            max.map_or_else(|| Ok(low.shallow_clone()), |max| low.f_clamp_max(max))
        }
        Call::Combine { function } => combined(first, inputs[1], *function),
        Call::Where => inputs[1].f_where_self(&first.f_ne(0.0)?, inputs[2]),
        Call::LayerNorm { .. } | Call::RmsNorm { .. } | Call::GroupNorm { .. } | Call::BatchNorm { .. } => {
            normed(call, inputs)
        }
        Call::Interpolate { mode, size, align_corners, scales } => {
            interpolated(first, *mode, &many(size), *align_corners, scales.as_deref())
        }
        Call::PixelShuffle { factor } => first.f_pixel_shuffle(one(*factor)),
        Call::PixelUnshuffle { factor } => first.f_pixel_unshuffle(one(*factor)),
        Call::Unfold { kernel, dilation, padding, stride } => {
            first.f_im2col(many(kernel), many(dilation), many(padding), many(stride))
        }
        Call::Fold { size, kernel, dilation, padding, stride } => {
            first.f_col2im(many(size), many(kernel), many(dilation), many(padding), many(stride))
        }
        Call::AdaptiveAvgPool { .. } | Call::AdaptiveMaxPool { .. } | Call::AvgPool { .. } | Call::MaxPool { .. } => {
            pooled(call, first)
        }
        Call::Lstm { layers, bias, bidirectional } => lstm(first, &inputs[1..], *layers, *bias, *bidirectional),
    }
}

/// # Panics
/// On a call that is no norm.
fn normed(call: &Call, inputs: &[&Tensor]) -> Computed {
    let first = inputs[0];
    let optional = |at: usize, there: bool| there.then(|| inputs[at]);
    match call {
        Call::LayerNorm { shape, eps, weight, bias } => {
            let bias = optional(1 + usize::from(*weight), *bias);
            first.f_layer_norm(many(shape), optional(1, *weight), bias, *eps, true)
        }
        Call::RmsNorm { shape, eps, weight } => {
            let axes: Vec<i64> = (1..=shape.len() as i64).map(|i| -i).collect();
            let squares = first.f_square()?.f_mean_dim(&axes[..], true, None::<Kind>)?;
            let normed = first.f_mul(&squares.f_add_scalar(eps.unwrap_or(f64::from(f32::EPSILON)))?.f_rsqrt()?)?;
            optional(1, *weight).map_or_else(|| Ok(normed.shallow_clone()), |weight| normed.f_mul(weight))
        }
        Call::GroupNorm { groups, eps, weight, bias } => {
            let bias = optional(1 + usize::from(*weight), *bias);
            first.f_group_norm(one(*groups), optional(1, *weight), bias, *eps, true)
        }
        Call::BatchNorm { eps, weight, bias } => {
            let bias = optional(3 + usize::from(*weight), *bias);
            first.f_batch_norm(optional(3, *weight), bias, Some(inputs[1]), Some(inputs[2]), false, 0.0, *eps, true)
        }
        other => unreachable!("{other} is no norm"),
    }
}

/// # Panics
/// On a call that does not pool.
fn pooled(call: &Call, first: &Tensor) -> Computed {
    match call {
        Call::AdaptiveAvgPool { size } => match size.len() {
            1 => first.f_adaptive_avg_pool1d(many(size)),
            _ => first.f_adaptive_avg_pool2d(many(size)),
        },
        Call::AdaptiveMaxPool { size } => match size.len() {
            1 => Ok(first.f_adaptive_max_pool1d(many(size))?.0),
            _ => Ok(first.f_adaptive_max_pool2d(many(size))?.0),
        },
        Call::AvgPool { kernel, stride, padding, ceil_mode, count_include_pad } => {
            let [kernel_size, stride, padding] = [kernel, stride, padding].map(|n| many(n));
            match kernel.len() {
                1 => first.f_avg_pool1d(kernel_size, stride, padding, *ceil_mode, *count_include_pad),
                _ => first.f_avg_pool2d(kernel_size, stride, padding, *ceil_mode, *count_include_pad, None),
            }
        }
        Call::MaxPool { kernel, stride, padding, dilation, ceil_mode } => {
            let [kernel_size, stride, padding, dilation] = [kernel, stride, padding, dilation].map(|n| many(n));
            match kernel.len() {
                1 => first.f_max_pool1d(kernel_size, stride, padding, dilation, *ceil_mode),
                _ => first.f_max_pool2d(kernel_size, stride, padding, dilation, *ceil_mode),
            }
        }
        other => unreachable!("{other} does not pool"),
    }
}

fn one(n: usize) -> i64 {
    n as i64
}

fn many(all: &[usize]) -> Vec<i64> {
    all.iter().map(|&n| n as i64).collect()
}

fn length(of: &Length, n_images: i64) -> i64 {
    match of {
        Length::Fixed(n) => *n as i64,
        Length::PerImage { per_image } => (*per_image as i64).saturating_mul(n_images),
    }
}

fn lengths(shape: &[Length], n_images: i64) -> Vec<i64> {
    shape.iter().map(|of| length(of, n_images)).collect()
}

/// Indices are stored as all weights are.
fn to_index(x: &Tensor) -> Computed {
    x.f_to_kind(Kind::Int64)
}

fn padded(x: &Tensor, pad: &[i64], mode: Padding, value: f64) -> Computed {
    match mode {
        Padding::Constant => x.f_pad(pad, "constant", value),
        Padding::Reflect => x.f_pad(pad, "reflect", None::<f64>),
        Padding::Replicate => x.f_pad(pad, "replicate", None::<f64>),
        Padding::Circular => x.f_pad(pad, "circular", None::<f64>),
    }
}

fn reduced(x: &Tensor, function: Reduction, dims: &[i64], keepdim: bool) -> Computed {
    let none = None::<Kind>;
    match function {
        Reduction::Mean => x.f_mean_dim(dims, keepdim, none),
        Reduction::Sum => x.f_sum_dim_intlist(dims, keepdim, none),
        Reduction::Amax => x.f_amax(dims, keepdim),
        Reduction::Amin => x.f_amin(dims, keepdim),
        Reduction::Prod => {
            let mut highest: Vec<i64> = dims.to_vec();
            highest.sort_unstable();
            let mut product = x.shallow_clone();
            for &dim in highest.iter().rev() {
                product = product.f_prod_dim_int(dim, keepdim, none)?;
            }
            Ok(product)
        }
        Reduction::Var => x.f_var_dim(dims, false, keepdim),
        Reduction::SampleVar => x.f_var_dim(dims, true, keepdim),
        Reduction::Std => x.f_std_dim(dims, false, keepdim),
        Reduction::SampleStd => x.f_std_dim(dims, true, keepdim),
        Reduction::Norm => x.f_square()?.f_sum_dim_intlist(dims, keepdim, none)?.f_sqrt(),
        Reduction::Norm1 => x.f_abs()?.f_sum_dim_intlist(dims, keepdim, none),
        Reduction::Logsumexp => x.f_logsumexp(dims, keepdim),
    }
}

fn mapped(x: &Tensor, function: Function) -> Computed {
    match function {
        Function::Exp => x.f_exp(),
        Function::Expm1 => x.f_expm1(),
        Function::Log => x.f_log(),
        Function::Log1p => x.f_log1p(),
        Function::Sqrt => x.f_sqrt(),
        Function::Rsqrt => x.f_rsqrt(),
        Function::Reciprocal => x.f_reciprocal(),
        Function::Sin => x.f_sin(),
        Function::Cos => x.f_cos(),
        Function::Erf => x.f_erf(),
        Function::Sign => x.f_sign(),
        Function::Floor => x.f_floor(),
        Function::Ceil => x.f_ceil(),
        Function::Round => x.f_round(),
        Function::LogicalNot => x.f_eq(0.0)?.f_to_kind(Kind::Float),
    }
}

fn combined(a: &Tensor, b: &Tensor, function: Combination) -> Computed {
    // Truth is a number, as everything here.
    let number = |truth: Computed| truth?.f_to_kind(Kind::Float);
    match function {
        Combination::Add => a.f_add(b),
        Combination::Sub => a.f_sub(b),
        Combination::Mul => a.f_mul(b),
        Combination::Div => a.f_div(b),
        Combination::Pow => a.f_pow(b),
        Combination::Maximum => a.f_maximum(b),
        Combination::Minimum => a.f_minimum(b),
        Combination::Eq => number(a.f_eq_tensor(b)),
        Combination::Ne => number(a.f_ne_tensor(b)),
        Combination::Lt => number(a.f_lt_tensor(b)),
        Combination::Le => number(a.f_le_tensor(b)),
        Combination::Gt => number(a.f_gt_tensor(b)),
        Combination::Ge => number(a.f_ge_tensor(b)),
    }
}

fn interpolated(x: &Tensor, mode: Resampling, size: &[i64], corners: bool, scales: Option<&[f64]>) -> Computed {
    let scale = |axis: usize| scales.and_then(|all| all.get(axis).copied());
    match (mode, size.len()) {
        (Resampling::Nearest, 1) => x.f_upsample_nearest1d(size, scale(0)),
        (Resampling::Nearest, _) => x.f_upsample_nearest2d(size, scale(0), scale(1)),
        (Resampling::NearestExact, 1) => x.f_internal_upsample_nearest_exact1d(size, scale(0)),
        (Resampling::NearestExact, _) => x.f_internal_upsample_nearest_exact2d(size, scale(0), scale(1)),
        (Resampling::Linear, _) => x.f_upsample_linear1d(size, corners, scale(0)),
        (Resampling::Bilinear, _) => x.f_upsample_bilinear2d(size, corners, scale(0), scale(1)),
        (Resampling::Bicubic, _) => x.f_upsample_bicubic2d(size, corners, scale(0), scale(1)),
    }
}

fn lstm(x: &Tensor, params: &[&Tensor], layers: usize, bias: bool, bidirectional: bool) -> Computed {
    // The hidden state is as wide as the second weight of a layer; LibTorch says what else does not fit.
    let hidden = params.get(1).and_then(|weight| weight.size().last().copied()).unwrap_or(0);
    let n_sequences = x.size().first().copied().unwrap_or(0);
    let n_states = one(layers) << i64::from(bidirectional);
    let state = Tensor::f_zeros([n_states, n_sequences, hidden], (x.kind(), x.device()))?;
    let (made, ..) = x.f_lstm(&[&state, &state], params, bias, one(layers), 0.0, false, bidirectional, true)?;
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_an_error() {
        let x = Tensor::zeros([2, 3, 4], (Kind::Float, tch::Device::Cpu));
        let calls = [
            Call::Reshape { shape: vec![Length::PerImage { per_image: 7 }, Length::Fixed(usize::MAX >> 1)] },
            Call::Permute { dims: vec![0, 1] },
            Call::Einsum { equation: "no formula".into() },
        ];
        for call in calls {
            assert!(compute(&call, &[&x], 2).is_err(), "{call}");
        }
    }
}
