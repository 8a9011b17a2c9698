//! What each op computes, on tensors `[B, C, H, W]`, `[B, C, T]` and `[B, C]`.
//!
//! Values keep their features last in memory (channels-last), which is what every kernel here is fastest on; moving the
//! feature axis is then only a change of strides.

use crate::calls;
use crate::forward::Statistics;
use tch::{TchError, Tensor};
use zipit::graph::{Activation, Op, Window};

type Computed = Result<Tensor, TchError>;

/// Computes `op` of `inputs` with `params`, in the op's order; it may overwrite the first input if `in_place`.
pub(crate) fn compute(
    op: &Op,
    inputs: &[&Tensor],
    params: &[&Tensor],
    statistics: Statistics,
    in_place: bool,
    n_images: i64,
) -> Computed {
    let Some(&first) = inputs.first() else { return Ok(params[0].shallow_clone()) };
    match op {
        Op::Conv2d { window, groups, .. } => conv2d(&in_kind_of(first, params[0])?, params, window, *groups as i64),
        Op::Linear { .. } => {
            let last = features_last(&in_kind_of(first, params[0])?)?;
            features_first(&last.f_linear(params[0], params.get(1).copied())?)
        }
        Op::BatchNorm2d { eps, .. } => {
            let [weight, bias, mean, var] = [0, 1, 2, 3].map(|i| Some(params[i]));
            let (training, momentum, [mean, var]) = match statistics {
                Statistics::Running => (false, 0.0, [mean, var]),
                Statistics::Batch { momentum } => (true, momentum, [mean, var]),
                Statistics::Own => (true, 0.0, [None, None]),
            };
            first.f_batch_norm(weight, bias, mean, var, training, momentum, *eps, true)
        }
        Op::LayerNorm { eps, num_features, .. } => {
            let last = features_last(first)?;
            let shape = [*num_features as i64];
            let normed = last.f_layer_norm(shape, Some(params[0]), params.get(1).copied(), *eps, true)?;
            features_first(&normed)
        }
        Op::PowerMeanNorm { power, eps, .. } => {
            let powers = if *power == 1 { first.shallow_clone() } else { first.f_square()? };
            let mean = powers.f_mean_dim(&[1_i64][..], true, None)?.f_add_scalar(*eps)?;
            match params.first() {
                Some(weight) => first.f_div(&mean.f_sqrt()?)?.f_mul(&learned(weight, 0, first)?),
                None => first.f_div(&mean),
            }
        }
        Op::GroupNorm { num_groups, eps, .. } => {
            first.f_group_norm(*num_groups as i64, Some(params[0]), Some(params[1]), *eps, true)
        }
        Op::Relu if in_place => first.shallow_clone().f_relu_(),
        Op::Relu => first.f_relu(),
        Op::Activation { function } => activation(first, *function),
        Op::MaxPool2d { window: w } => {
            first.f_max_pool2d(pair(w.kernel), pair(w.stride), pair(w.padding), pair(w.dilation), w.ceil_mode)
        }
        Op::AvgPool2d { window: w, count_include_pad } => {
            first.f_avg_pool2d(pair(w.kernel), pair(w.stride), pair(w.padding), w.ceil_mode, *count_include_pad, None)
        }
        Op::AdaptiveAvgPool2d { output } => first.f_adaptive_avg_pool2d(pair(*output)),
        Op::Mean => {
            let positions: Vec<i64> = (2..first.dim() as i64).collect();
            if positions.is_empty() { Ok(first.shallow_clone()) } else { first.f_mean_dim(&positions[..], false, None) }
        }
        Op::Flatten => first.f_flatten(1, -1),
        Op::Tokens => first.f_flatten(2, 3),
        Op::SelectToken { index } => first.f_select(2, *index as i64),
        Op::PrependTokens { num_tokens, num_features } => {
            let n_images = first.size()[0];
            let tokens =
                in_kind_of(params[0], first)?.f_expand([n_images, *num_tokens as i64, *num_features as i64], false)?;
            features_first(&Tensor::f_cat(&[&tokens, &features_last(first)?], 1)?)
        }
        Op::PositionEmbedding { axis, .. } => first.f_add(&learned(params[0], *axis, first)?),
        Op::LayerScale { axis, .. } => first.f_mul(&learned(params[0], *axis, first)?),
        Op::Affine { scale, shift } => first.f_mul_scalar(*scale)?.f_add_scalar(*shift),
        Op::Attention { heads, scale, .. } => attention(inputs, params.first().copied(), *heads as i64, *scale),
        Op::Add => {
            let mut sum = first.shallow_clone();
            for (i, other) in inputs[1..].iter().enumerate() {
                // What was added up so far may have to grow along positions, which an existing tensor cannot.
                let own = i > 0 && sum.size() == other.size();
                sum = if own || in_place { sum.f_add_(other)? } else { sum.f_add(other)? };
            }
            Ok(sum)
        }
        Op::Mul => first.f_mul(inputs[1]),
        Op::Join { axis } => Tensor::f_cat(inputs, *axis as i64 + 1),
        Op::Concat => Tensor::f_cat(inputs, 1),
        Op::Slice { ranges } => {
            let parts: Vec<Tensor> = ranges
                .iter()
                .map(|&[from, to]| first.f_narrow(1, from as i64, (to - from) as i64))
                .collect::<Result<_, _>>()?;
            if let [only] = &parts[..] { Ok(only.shallow_clone()) } else { Tensor::f_cat(&parts, 1) }
        }
        Op::ChannelShuffle { groups } => first.f_channel_shuffle(*groups as i64),
        Op::Pad { padding, value } => {
            let padding = padding.map(|n| n as i64);
            first.f_pad(padding, "constant", *value)
        }
        Op::Stored { .. } => Ok(params[0].shallow_clone()),
        Op::Call { call, .. } | Op::Positions { call, .. } => calls::compute(call, inputs, n_images),
        Op::Follow { shape, axis } => {
            let whole: Vec<i64> = std::iter::once(n_images).chain(shape.iter().map(|&n| n as i64)).collect();
            first.f_reshape(whole)?.f_movedim_int(*axis as i64 + 1, 1)
        }
    }
}

fn conv2d(x: &Tensor, params: &[&Tensor], window: &Window, groups: i64) -> Computed {
    let Window { kernel, mut stride, padding, dilation, .. } = *window;
    let mut x = x.shallow_clone();
    // oneDNN 3.7's AVX2 kernel for the gradient of a strided 1×1 convolution of few channels writes beyond its buffer.
    if kernel == [1, 1] && padding == [0, 0] && stride != [1, 1] && (params[0].requires_grad() || x.requires_grad()) {
        x = x.f_slice(2, 0, None, stride[0] as i64)?.f_slice(3, 0, None, stride[1] as i64)?;
        stride = [1, 1];
    }
    x.f_conv2d(params[0], params.get(1).copied(), pair(stride), pair(padding), pair(dilation), groups)
}

pub(crate) fn activation(x: &Tensor, function: Activation) -> Computed {
    match function {
        Activation::Relu6 => x.f_clamp(0.0, 6.0),
        Activation::Gelu => x.f_gelu("none"),
        Activation::GeluTanh => x.f_gelu("tanh"),
        Activation::Silu => x.f_silu(),
        Activation::Sigmoid => x.f_sigmoid(),
        Activation::Hardsigmoid => x.f_hardsigmoid(),
        Activation::Hardswish => x.f_hardswish(),
        Activation::Tanh => x.f_tanh(),
        Activation::Mish => x.f_mish(),
        Activation::Softplus => x.f_softplus(),
        // LibTorch's own takes its slope from nowhere.
        Activation::LeakyRelu(slope) => x.f_clamp_min(0.0)?.f_add(&x.f_clamp_max(0.0)?.f_mul_scalar(slope)?),
        Activation::Selu => x.f_selu(),
        Activation::Celu(alpha) => {
            let below = x.f_clamp_max(0.0)?.f_div_scalar(alpha)?.f_expm1()?.f_mul_scalar(alpha)?;
            x.f_clamp_min(0.0)?.f_add(&below)
        }
        Activation::Hardtanh(low, high) => x.f_clamp(low, high),
        Activation::Threshold(threshold, value) => x.f_threshold(threshold, value),
        Activation::Softsign => x.f_div(&x.f_abs()?.f_add_scalar(1.0)?),
        Activation::LogSigmoid => x.f_log_sigmoid(),
        // LibTorch's own take their lambda from nowhere.
        Activation::Hardshrink(lambda) => x.f_mul(&x.f_abs()?.f_gt(lambda)?.f_to_kind(x.kind())?),
        Activation::Softshrink(lambda) => x.f_sub(&x.f_clamp(-lambda, lambda)?),
        Activation::Tanhshrink => x.f_sub(&x.f_tanh()?),
        Activation::Abs => x.f_abs(),
        Activation::Elu(alpha) => x.f_clamp_min(0.0)?.f_add(&x.f_clamp_max(0.0)?.f_expm1()?.f_mul_scalar(alpha)?),
    }
}

/// Per head, softmax(scale · qᵀk + bias) v.
fn attention(inputs: &[&Tensor], bias: Option<&Tensor>, heads: i64, scale: Option<f64>) -> Computed {
    let bias = bias.map(|bias| in_kind_of(bias, inputs[0])).transpose()?;
    let bias = bias.as_ref();
    if inputs[0].dim() > 3 {
        return windowed_attention(inputs, bias, heads, scale);
    }
    // `[B, T, heads·h]` → `[B, heads, T, h]`.
    let split = |x: &Tensor| -> Computed {
        let (b, c, t) = x.size3()?;
        x.f_transpose(1, 2)?.f_reshape([b, t, heads, c / heads])?.f_transpose(1, 2)
    };
    let [q, k, v] = [split(inputs[0])?, split(inputs[1])?, split(inputs[2])?];
    let mixed = Tensor::f_scaled_dot_product_attention(&q, &k, &v, bias, 0.0, false, scale, false)?;
    mixed.f_transpose(1, 2)?.f_flatten(2, 3)?.f_transpose(1, 2)
}

/// In windows: `[B, heads·h, …, T]`.
fn windowed_attention(inputs: &[&Tensor], bias: Option<&Tensor>, heads: i64, scale: Option<f64>) -> Computed {
    let n_images = inputs[0].size()[0];
    // `[B·windows, heads, T, h]`.
    let split = |x: &Tensor| -> Computed {
        let size = x.size();
        let (c, t) = (size[1], size[size.len() - 1]);
        let windows = x.f_flatten(2, -2)?.f_permute([0, 2, 3, 1])?;
        windows.f_reshape([-1, t, heads, c / heads])?.f_transpose(1, 2)
    };
    let [q, k, v] = [split(inputs[0])?, split(inputs[1])?, split(inputs[2])?];
    let bias = match bias {
        Some(bias) if bias.size()[0] > 1 => {
            let mut size = vec![n_images];
            size.extend(bias.size());
            Some(bias.f_unsqueeze(0)?.f_expand(&size, false)?.f_flatten(0, 1)?)
        }
        Some(bias) => Some(bias.shallow_clone()),
        None => None,
    };
    let mixed = Tensor::f_scaled_dot_product_attention(&q, &k, &v, bias.as_ref(), 0.0, false, scale, false)?;
    let (windows, t) = (q.size()[0] / n_images.max(1), q.size()[2]);
    let together = mixed.f_transpose(1, 2)?.f_reshape([n_images, windows, t, -1])?.f_permute([0, 3, 1, 2])?;
    let mut size = inputs[0].size();
    size[1] = together.size()[1];
    together.f_reshape(size)
}

/// A learned tensor with its features along axis 1 and its positions behind, ready to be repeated over `value`.
fn learned(tensor: &Tensor, axis: usize, value: &Tensor) -> Computed {
    let mut first = tensor.f_movedim_int(axis as i64, 0)?;
    let n_positions = value.dim() - 2;
    while first.dim() > n_positions + 1 {
        first = first.f_squeeze_dim(1)?;
    }
    while first.dim() < n_positions + 1 {
        first = first.f_unsqueeze(1)?;
    }
    in_kind_of(&first.f_unsqueeze(0)?, value)
}

/// The tensor in another's kind: under autocast layers compute in one kind and what is learned beside them is in another.
fn in_kind_of(tensor: &Tensor, other: &Tensor) -> Computed {
    tensor.f_to_kind(other.kind())
}

/// `[B, …, C]`, a view.
pub(crate) fn features_last(x: &Tensor) -> Computed {
    if x.dim() == 2 { Ok(x.shallow_clone()) } else { x.f_movedim_int(1, -1) }
}

/// `[B, C, …]` of `[B, …, C]`, a view.
pub(crate) fn features_first(x: &Tensor) -> Computed {
    if x.dim() == 2 { Ok(x.shallow_clone()) } else { x.f_movedim_int(-1, 1) }
}

fn pair(of: [usize; 2]) -> [i64; 2] {
    of.map(|n| n as i64)
}
