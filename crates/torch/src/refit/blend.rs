//! M·[y¹; …; yᴺ] on tensors.

use crate::Result;
use crate::ops::{features_first, features_last};
use tch::{Kind, Tensor};
use zipit::apply::{Blend, Blended, Groups, Piece};

/// Averages of more features than this are taken member by member: d reads a position, where a product with M takes d·d'
/// multiply-adds.
const MANY: usize = 128;

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
        let counts = only.is_none_or(|only| only == i);
        if !counts && trust.is_none() {
            continue;
        }
        let members = match &piece.made {
            Blended::Groups(groups) if piece.dim > MANY && trust.is_none() => Some(groups),
            _ => None,
        };
        let flat = value.f_reshape([-1, dim * repeat])?;
        let mut product = if let Some(groups) = members {
            averages(piece, groups, i, &flat)?
        } else {
            let merge = merge_of(piece, i, value)?;
            if let Some(trust) = trust {
                let share = merge.f_sum_dim_intlist(1, false, Kind::Float)?.f_unsqueeze(0)?;
                add(&mut counted, trust[i].f_unsqueeze(1)?.f_mm(&share)?)?;
                if !counts {
                    continue;
                }
            }
            if repeat == 1 {
                flat.f_mm(&merge.f_tr()?)?
            } else {
                merge.f_matmul(&flat.f_reshape([-1, dim, repeat])?)?
            }
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

/// Mᵢ on values `[n, d·repeat]` of one model, `[n, d'·repeat]`: the groups' first members, then the second ones of those
/// that have more, and so on.
fn averages(piece: &Piece, groups: &Groups, i: usize, flat: &Tensor) -> Result<Tensor> {
    let mut members = vec![vec![]; piece.width];
    let counting = (0..piece.dim).filter(|k| groups.share[i * piece.dim + k] != 0.0);
    counting.for_each(|k| members[groups.of[i * piece.dim + k] as usize].push(k));
    let mut order: Vec<usize> = (0..piece.width).collect();
    order.sort_by_key(|&group| std::cmp::Reverse(members[group].len()));
    let device = flat.device();
    let repeated = |each: &[usize]| {
        let all = each.iter().flat_map(|&at| (0..piece.repeat).map(move |r| (at * piece.repeat + r) as i64));
        Tensor::f_from_slice(&all.collect::<Vec<_>>())
    };
    let sum = Tensor::f_zeros([flat.size()[0], (piece.width * piece.repeat) as i64], (Kind::Float, device))?;
    let most = order.first().map_or(0, |&group| members[group].len());
    for round in 0..most {
        let own: Vec<usize> = order.iter().map_while(|&group| members[group].get(round).copied()).collect();
        let share = own.iter().flat_map(|&k| vec![groups.share[i * piece.dim + k]; piece.repeat]);
        let share = Tensor::f_from_slice(&share.collect::<Vec<_>>())?.f_to_device(device)?;
        let read = flat.f_index_select(1, &repeated(&own)?.f_to_device(device)?)?;
        let mut to = sum.f_narrow(1, 0, (own.len() * piece.repeat) as i64)?;
        let _ = to.f_addcmul_(&read, &share)?;
    }
    let mut place = vec![0; piece.width];
    order.iter().enumerate().for_each(|(at, &group)| place[group] = at);
    Ok(sum.f_index_select(1, &repeated(&place)?.f_to_device(device)?)?)
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Groups of one model, of both, of many features and of none of a model's; a member that does not count.
    #[test]
    fn averages_by_members_are_products_with_m() {
        tch::manual_seed(1);
        for repeat in [1, 3] {
            let groups = Groups {
                of: vec![2, 0, 2, 2, 1, 3, 1, 0, 3, 3, 3, 2],
                share: vec![0.25, 0.5, 0.25, 0.25, 0.5, 0.0, 0.5, 0.5, 1.0, 0.0, 0.0, 0.25],
            };
            let piece = Piece { dim: 6, width: 4, repeat, made: Blended::Groups(groups.clone().into()) };
            for i in 0..2 {
                let value = Tensor::randn([7, 6 * repeat as i64], (Kind::Float, tch::Device::Cpu));
                let merge = merge_of(&piece, i, &value).unwrap();
                let expected = merge.matmul(&value.reshape([7, 6, repeat as i64])).reshape([7, -1]);
                let found = averages(&piece, &groups, i, &value).unwrap();
                let off: f64 = (found - expected).abs().max().try_into().unwrap();
                assert!(off < 1e-6, "{repeat}, model {i}: {off}");
            }
        }
    }
}
