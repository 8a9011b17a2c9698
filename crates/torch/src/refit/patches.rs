//! What a convolution reads, as rows of numbers.

use crate::Result;
use tch::Tensor;
use zipit::graph::Window;

/// `[G, S, kH·kW·I/G]` of `[B, I, H, W]`, S = B·H'·W'.
pub(crate) fn patches(x: &Tensor, window: &Window, groups: i64) -> Result<Tensor> {
    flat(&windows(x, window)?, groups)
}

/// What a window sees at every position of `[B, I, H, W]`: a view, `[B, H', W', kH, kW, I]`.
pub(super) fn windows(x: &Tensor, window: &Window) -> Result<Tensor> {
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
    Ok(seen.f_permute([0, 1, 2, 4, 5, 3])?)
}

/// `[G, S, kH·kW·I/G]` of `[B, H', W', kH, kW, I]`.
pub(super) fn flat(windows: &Tensor, groups: i64) -> Result<Tensor> {
    let [_, _, _, kh, kw, c] = windows.size()[..] else { unreachable!("windows") };
    let positions = kh * kw;
    if groups == 1 {
        return Ok(windows.f_reshape([1, -1, positions * c])?);
    }
    let split = windows.f_reshape([-1, positions, groups, c / groups])?;
    Ok(split.f_permute([2, 0, 1, 3])?.f_reshape([groups, -1, positions * c / groups])?)
}
