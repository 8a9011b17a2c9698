//! M·[y¹; …; yᴺ] on tensors.

use crate::Result;
use crate::ops::{features_first, features_last};
use tch::{Kind, Tensor};
use zipit::apply::{Blend, Blended, Piece};

/// What a blend makes of the models' values at one place, `[B, C, …]` each: the same with the merged features. Features
/// stay last in memory. With `trust`, `[B]` of each model, averages count each model so much on every image
/// ([`Owners`](zipit::refit::Owners)); methods that mix features have no averages and stay as they are.
pub(super) fn blend(blend: &Blend, values: &[Tensor], trust: Option<&[Tensor]>) -> Result<Tensor> {
    if let Some(i) = blend.own() {
        return Ok(values[i].shallow_clone());
    }
    let mut last: Vec<Tensor> = values.iter().map(features_last).collect::<Result<_, _>>()?;
    if let Some(order) = &blend.order {
        let order: Vec<i64> = order.iter().map(|&at| at as i64).collect();
        let order = Tensor::f_from_slice(&order)?.f_to_device(values[0].device())?;
        last = last.iter().map(|v| v.f_index_select(-1, &order)).collect::<Result<_, _>>()?;
    }
    let axis = last[0].dim() as i64 - 1;
    let mut from = 0;
    let mut parts = Vec::new();
    for piece in &blend.pieces {
        let length = (piece.dim * piece.repeat) as i64;
        let inputs: Vec<Tensor> = last.iter().map(|v| v.f_narrow(axis, from, length)).collect::<Result<_, _>>()?;
        parts.push(part(piece, blend.only, &inputs, trust)?);
        from += length;
    }
    let whole = if parts.len() == 1 { parts.remove(0) } else { Tensor::f_cat(&parts, axis)? };
    Ok(features_first(&whole)?)
}

/// One piece, features last.
fn part(piece: &Piece, only: Option<usize>, values: &[Tensor], trust: Option<&[Tensor]>) -> Result<Tensor> {
    if let Blended::Own(i) = piece.made {
        return Ok(values[i].shallow_clone());
    }
    let trust = trust.filter(|_| matches!(piece.made, Blended::Groups(_)));
    let (n_images, dim, width, repeat) =
        (values[0].size()[0], piece.dim as i64, piece.width as i64, piece.repeat as i64);
    let mut shape = values[0].size();
    if let Some(last) = shape.last_mut() {
        *last = width * repeat;
    }
    // Σᵢ tᵢ(Mᵢyⁱ) and Σᵢ tᵢ(Mᵢ1): the latter of all models, so that summands of one model each add up to the average.
    let (mut sum, mut counted): (Option<Tensor>, Option<Tensor>) = (None, None);
    for (i, value) in values.iter().enumerate() {
        let merge = merge_of(piece, i, value)?;
        if let Some(trust) = trust {
            let share = merge.f_sum_dim_intlist(1, false, Kind::Float)?.f_unsqueeze(0)?;
            add(&mut counted, trust[i].f_unsqueeze(1)?.f_mm(&share)?)?;
        }
        if only.is_some_and(|only| only != i) {
            continue;
        }
        let flat = value.f_reshape([-1, dim * repeat])?;
        let mut product = if repeat == 1 {
            flat.f_mm(&merge.f_tr()?)?
        } else {
            merge.f_matmul(&flat.f_reshape([-1, dim, repeat])?)?
        };
        if let Some(trust) = trust {
            product = product.f_reshape([n_images, -1])?.f_mul(&trust[i].f_unsqueeze(1)?)?;
        }
        add(&mut sum, product)?;
    }
    let sum = sum.expect("a model contributes");
    let Some(counted) = counted else { return Ok(sum.f_reshape(shape)?) };
    let average = sum.f_reshape([n_images, -1, width, repeat])?.f_div(&counted.f_reshape([n_images, 1, width, 1])?)?;
    Ok(average.f_reshape(shape)?)
}

fn add(sum: &mut Option<Tensor>, term: Tensor) -> Result<()> {
    *sum = Some(match sum.take() {
        Some(mut sum) => sum.f_add_(&term)?,
        None => term,
    });
    Ok(())
}

/// Mᵢ, `[d', d]`, where `like` lives.
fn merge_of(piece: &Piece, i: usize, like: &Tensor) -> Result<Tensor> {
    let mut dense = vec![0.0_f32; piece.width * piece.dim];
    for k in 0..piece.dim {
        let joint = i * piece.dim + k;
        match &piece.made {
            Blended::Groups(groups) => dense[groups.of[joint] as usize * piece.dim + k] = groups.share[joint],
            Blended::Dense(merge) => {
                for g in 0..piece.width {
                    dense[g * piece.dim + k] = merge[[g, joint]];
                }
            }
            Blended::Own(_) => {}
        }
    }
    let merge = Tensor::f_from_slice(&dense)?.f_reshape([piece.width as i64, piece.dim as i64])?;
    Ok(merge.f_to_device(like.device())?)
}
