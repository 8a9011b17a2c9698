//! A layer's sums from the second moments of what the models' layers read: no images, no forward pass.
//!
//! With x = \[x¹; …; xᴺ\] what the models feed the layer on the same images, the merged network without errors would feed
//! it x̃ = M x, and its target is ỹ = M·\[W₁x¹ + b₁; …\]: both are linear in x, so E\[xxᵀ\] is all there is to know (PLeaS).
//! Without the models' products with each other, each model is fitted by itself, on its own features in the merged
//! network's order (RegMean).

use super::design::{Design, unknowns};
use super::layers::Layer;
use super::repair::{Site, Spread, channels};
use super::sums::{Part, Sums};
use crate::apply::{Blend, Blended};
use crate::graph::{Node, Op};
use crate::{Error, Model, Moments, Result};
use ndarray::{Array1, Array2, ArrayView2, Axis, Slice};

/// Raw moments of what one layer reads in the models: patches for a convolution, positions first, `[kH, kW, C]`.
#[derive(Debug, Clone, PartialEq)]
pub enum Gram {
    /// Of all models on the same images, `[N·F]`.
    Joint(Moments),
    /// Of each model by itself, `[F]`.
    Own(Vec<Moments>),
}

/// F, numbers that the layers of the models read at once; `None` for ops without parameters.
#[must_use]
pub fn patch_size(op: &Op) -> Option<usize> {
    Design::of(op).map(|design| design.n_groups * design.n_inputs)
}

/// Whether two layers read the same numbers of the same value: what is measured for one serves the other.
#[must_use]
pub fn reads_alike(a: &Node, b: &Node) -> bool {
    let window = |node: &Node| match &node.op {
        Op::Conv2d { window, .. } => Some(*window),
        _ => None,
    };
    a.inputs == b.inputs && patch_size(&a.op) == patch_size(&b.op) && window(a) == window(b)
}

/// The models whose features are measured together, and their moments over n.
struct View<'a> {
    models: Vec<usize>,
    count: f64,
    mean: Array1<f64>,
    second: Array2<f64>,
    own: bool,
    all: &'a [&'a Model],
    source: &'a Node,
}

/// An affine map of the joint features: rows `[O, N·F]` and offsets `[O]`.
struct Affine {
    rows: Array2<f64>,
    offset: Array1<f64>,
    /// Rows that a model of the view contributes to.
    touched: Vec<bool>,
}

impl Gram {
    /// Adds what was measured on other images.
    ///
    /// # Errors
    /// When the other one is of another layer or kind.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        match (self, other) {
            (Self::Joint(sum), Self::Joint(part)) => sum.merge(part),
            (Self::Own(sums), Self::Own(parts)) if sums.len() == parts.len() => {
                sums.iter_mut().zip(parts).try_for_each(|(sum, part)| sum.merge(part))
            }
            _ => Err(Error::Numbers("second moments of other models cannot be added".into())),
        }
    }

    fn views<'a>(&self, source: &'a Node, all: &'a [&'a Model]) -> Result<Vec<View<'a>>> {
        let view = |models: Vec<usize>, moments: &Moments, own: bool| -> Result<View<'a>> {
            let expected = patch_size(&source.op).unwrap_or(0) * models.len();
            if moments.n_joint() != expected {
                return Err(Error::Numbers(format!(
                    "`{}`: moments of {} numbers, but the models' layers read {expected}",
                    source.name,
                    moments.n_joint()
                )));
            }
            let count = moments.count as f64;
            Ok(View { models, count, mean: moments.mean(), second: moments.second_moment(), own, all, source })
        };
        match self {
            Self::Joint(moments) => Ok(vec![view((0..all.len()).collect(), moments, false)?]),
            Self::Own(each) if each.len() == all.len() => {
                each.iter().enumerate().map(|(i, moments)| view(vec![i], moments, true)).collect()
            }
            Self::Own(each) => {
                Err(Error::Numbers(format!("`{}`: moments of {} models for {}", source.name, each.len(), all.len())))
            }
        }
    }
}

impl View<'_> {
    fn patch(&self) -> usize {
        self.mean.len() / self.models.len()
    }

    /// For each joint number, the merged patch numbers it is in, and the width of a merged patch.
    fn patches(&self, blend: &Blend) -> (Vec<Vec<(usize, f64)>>, usize) {
        let width: usize = blend.pieces.iter().map(|piece| piece.width * piece.repeat).sum();
        let maps: Vec<_> = self.models.iter().map(|&i| self.channels(blend, i)).collect();
        let n_positions = self.patch() / maps[0].len();
        let mut all = Vec::with_capacity(self.mean.len());
        for map in &maps {
            for p in 0..n_positions {
                all.extend(map.iter().map(|entries| entries.iter().map(|&(c, w)| (p * width + c, w)).collect()));
            }
        }
        (all, n_positions * width)
    }

    /// M's entries for model i; where it is measured by itself, its members of each group are averaged by themselves,
    /// and a value that is not merged is its own.
    fn channels(&self, blend: &Blend, i: usize) -> Vec<Vec<(usize, f64)>> {
        if !self.own {
            return channels(blend, i);
        }
        let is_own = |made: &Blended| matches!(made, Blended::Own(_));
        if blend.pieces.iter().all(|piece| is_own(&piece.made)) {
            let d: usize = blend.pieces.iter().map(|piece| piece.dim * piece.repeat).sum();
            return (0..d).map(|c| vec![(c, 1.0)]).collect();
        }
        normalised(channels(blend, i))
    }

    /// What the models' layers make of the joint features, merged as `target` says.
    fn target(&self, target: &Blend) -> Affine {
        let n_rows: usize = target.pieces.iter().map(|piece| piece.width * piece.repeat).sum();
        let mut affine = Affine {
            rows: Array2::zeros((n_rows, self.mean.len())),
            offset: Array1::zeros(n_rows),
            touched: vec![false; n_rows],
        };
        for (at, &i) in self.models.iter().enumerate() {
            // A summand of a merged value stays a summand.
            let merge = channels(target, i);
            let merge = if self.own && target.only.is_none() { normalised(merge) } else { merge };
            // Of a head that other models do not have there is nothing to make.
            if merge.iter().all(Vec::is_empty) {
                continue;
            }
            let (w, b) = full(self.source, self.all[i]);
            for (feature, entries) in merge.iter().enumerate() {
                for &(row, share) in entries {
                    let from = at * self.patch();
                    let mut to = affine.rows.row_mut(row);
                    let mut to = to.slice_axis_mut(Axis(0), Slice::from(from..from + self.patch()));
                    to.scaled_add(share, &w.row(feature));
                    affine.offset[row] += share * b[feature];
                    affine.touched[row] = true;
                }
            }
        }
        affine
    }

    /// One sample's worth of a layer's sums on this view.
    fn part(&self, layer: &Layer) -> (Part, Vec<bool>) {
        let (patches, width) = self.patches(&layer.input);
        // T = A·E[xxᵀ], with A the map of the patches.
        let mut half = Array2::<f64>::zeros((width, self.mean.len()));
        let mut x = Array1::<f64>::zeros(width);
        for (j, entries) in patches.iter().enumerate() {
            for &(to, w) in entries {
                half.row_mut(to).scaled_add(w, &self.second.row(j));
                x[to] += w * self.mean[j];
            }
        }
        let mut xx = Array2::<f64>::zeros((width, width));
        for (mut to, from) in xx.rows_mut().into_iter().zip(half.rows()) {
            for (entries, &value) in patches.iter().zip(from) {
                for &(a, w) in entries {
                    to[a] += w * value;
                }
            }
        }
        let Affine { rows, offset, touched } = self.target(&layer.target);
        let means = rows.dot(&self.mean);
        let mut yx = rows.dot(&half.t());
        for (mut row, &c) in yx.rows_mut().into_iter().zip(&offset) {
            row.scaled_add(c, &x);
        }
        let squares = (&rows.dot(&self.second) * &rows).sum_axis(Axis(1));
        let yy = &squares + &(2.0 * &offset * &means) + &(&offset * &offset);
        let y = means + &offset;
        let mut part = Part::zeros((0..y.len()).collect(), width);
        (part.count, part.x, part.y, part.xx, part.yx, part.yy) = (1.0, x, y, xx, yx, yy);
        (part, touched)
    }
}

/// Each target's weights sum to one again.
fn normalised(mut map: Vec<Vec<(usize, f64)>>) -> Vec<Vec<(usize, f64)>> {
    let width = map.iter().flatten().map(|&(to, _)| to + 1).max().unwrap_or(0);
    let mut sums = vec![0.0; width];
    map.iter().flatten().for_each(|&(to, w)| sums[to] += w);
    for (to, w) in map.iter_mut().flatten() {
        *w /= sums[*to];
    }
    map
}

/// `(W, b)` of a model's layer on all channels, `[O, F]`: a depthwise kernel is zero on the others.
fn full(source: &Node, model: &Model) -> (Array2<f64>, Array1<f64>) {
    spread_out(&source.op, unknowns(source, &model.weights))
}

fn spread_out(op: &Op, (w, b): (Array2<f64>, Array1<f64>)) -> (Array2<f64>, Array1<f64>) {
    let Some(Design { n_outputs, .. }) = Design::of(op).filter(|design| design.n_groups > 1) else {
        return (w, b);
    };
    let all = patch_size(op).unwrap_or(0);
    let mut wide = Array2::zeros((w.nrows(), all));
    for (row, weights) in w.rows().into_iter().enumerate() {
        for (f, &weight) in weights.iter().enumerate() {
            wide[[row, place(op, row / n_outputs, f)]] = weight;
        }
    }
    (wide, b)
}

/// Where input f of a group stands among the numbers of all groups: positions first, channels next.
fn place(op: &Op, group: usize, f: usize) -> usize {
    let (in_channels, groups) = match *op {
        Op::Conv2d { in_channels, groups, .. } => (in_channels, groups),
        Op::BatchNorm2d { num_features, .. } => (num_features, num_features),
        _ => return f,
    };
    let per_group = in_channels / groups;
    (f / per_group) * in_channels + group * per_group + f % per_group
}

/// E\[x xᵀ\] of what each group of a layer reads in one model, `[F, F]` in the order of its weight's columns: channels first,
/// positions next. `None` where the moments are of another layer.
#[must_use]
pub fn by_columns(op: &Op, moments: &Moments) -> Option<Vec<Array2<f64>>> {
    let Design { n_groups, n_inputs, .. } = Design::of(op)?;
    if moments.n_joint() != n_groups * n_inputs {
        return None;
    }
    let n_positions = match op {
        Op::Conv2d { window, .. } => window.kernel.iter().product(),
        _ => 1,
    };
    let n_channels = n_inputs / n_positions;
    let all = moments.second_moment();
    let group = |g: usize| {
        let column = |j: usize| place(op, g, (j % n_positions) * n_channels + j / n_positions);
        let columns: Vec<usize> = (0..n_inputs).map(column).collect();
        all.select(Axis(0), &columns).select(Axis(1), &columns)
    };
    Some((0..n_groups).map(group).collect())
}

/// E\[g gᵀ\] of the gradients at what each group of a layer makes in one model, `[O, O]`. `None` where the moments are of
/// another layer.
#[must_use]
pub fn by_rows(op: &Op, moments: &Moments) -> Option<Vec<Array2<f64>>> {
    let Design { n_groups, n_outputs, .. } = Design::of(op)?;
    if moments.n_joint() != n_groups * n_outputs {
        return None;
    }
    let all = moments.second_moment();
    let group = |g: usize| {
        let own = Slice::from(g * n_outputs..(g + 1) * n_outputs);
        all.slice_axis(Axis(0), own).slice_axis(Axis(1), own).to_owned()
    };
    Some((0..n_groups).map(group).collect())
}

/// What a layer of the merged network would be measured to read and should make of it, from the models' second moments;
/// `weights` says how much each model counts, where each is fitted by itself.
///
/// # Errors
/// Moments of other layers.
///
/// # Panics
/// When the node has no parameters.
pub fn sums(
    layer: &Layer,
    node: &Node,
    source: &Node,
    models: &[&Model],
    gram: &Gram,
    weights: &[f64],
) -> Result<Sums> {
    let design = Design::of(&node.op).expect("a layer with parameters");
    let mut sums = Sums { design, parts: vec![] };
    let views = gram.views(source, models)?;
    for view in &views {
        let (whole, touched) = view.part(layer);
        let weight = view.count * if view.own { weights.get(view.models[0]).copied().unwrap_or(1.0) } else { 1.0 };
        for g in 0..design.n_groups {
            let rows: Vec<usize> =
                (g * design.n_outputs..(g + 1) * design.n_outputs).filter(|&row| touched[row]).collect();
            let inputs: Vec<usize> = (0..design.n_inputs).map(|f| place(&node.op, g, f)).collect();
            if !rows.is_empty() {
                sums.add_part(&whole.restricted(&rows, (design.n_groups > 1).then_some(&inputs)), weight);
            }
        }
    }
    Ok(sums)
}

/// The spread of a value as it would be measured, if every feature that is read were M x stretched to the standard
/// deviation that its members have on average: REPAIR in closed form. That is so where a layer reads images, or features
/// that were averaged from equal ones; deeper in a network it is an approximation.
///
/// # Errors
/// Moments of other layers, or of each model by itself.
pub fn spread(site: &Site, merged: &Model, source: &Node, models: &[&Model], gram: &Gram) -> Result<Spread> {
    let Gram::Joint(_) = gram else {
        return Err(Error::Request(
            "how much features shrink when they are averaged shows only in the models' products with each other: collect \
             with `--gram joint`"
                .into(),
        ));
    };
    let view = gram.views(source, models)?.remove(0);
    let mut covariance = view.second.clone();
    for (mut row, &mean) in covariance.rows_mut().into_iter().zip(&view.mean) {
        row.scaled_add(-mean, &view.mean);
    }
    let merged = view.merged(site, merged, &covariance);
    let own = models.iter().enumerate().map(|(i, model)| {
        let (w, b) = full(source, site.head.map_or(model, |head| models[head]));
        let block = Slice::from(i * view.patch()..(i + 1) * view.patch());
        let covariance = covariance.slice_axis(Axis(0), block);
        affine_moments(&w, w.dot(&view.mean.slice_axis(Axis(0), block)) + b, covariance.slice_axis(Axis(1), block))
    });
    let own: Vec<[Array1<f64>; 2]> = own.collect();
    let side_by_side = |k: usize| own.iter().flat_map(|moments| moments[k].iter().copied()).collect();
    Ok(Spread { count: 1.0, merged, models: [side_by_side(0), side_by_side(1)] })
}

/// Mean and mean square of rows·x + b, by its mean and the covariance of x.
fn affine_moments(rows: &Array2<f64>, mean: Array1<f64>, covariance: ArrayView2<'_, f64>) -> [Array1<f64>; 2] {
    let variance = (&rows.dot(&covariance) * rows).sum_axis(Axis(1));
    let square = variance + &mean * &mean;
    [mean, square]
}

impl View<'_> {
    /// Mean and mean square of a merged value whose writers read M x, stretched to the standard deviation that the
    /// members of each group have on average.
    fn merged(&self, site: &Site, merged: &Model, covariance: &Array2<f64>) -> [Array1<f64>; 2] {
        let std = covariance.diag().mapv(|v| v.max(0.0).sqrt());
        let n_rows = self.target(&site.target).offset.len();
        // The value as an affine map of the joint features.
        let mut rows = Array2::<f64>::zeros((n_rows, self.mean.len()));
        let mut means = Array1::<f64>::zeros(n_rows);
        for (&writer, input) in site.writers.iter().zip(&site.inputs) {
            let node = &merged.graph.nodes[writer];
            let (w, b) = spread_out(&node.op, unknowns(node, &merged.weights));
            let (patches, width) = self.patches(input);
            let mut members: Vec<Vec<(usize, f64)>> = vec![vec![]; width];
            for (j, entries) in patches.iter().enumerate() {
                for &(to, weight) in entries {
                    members[to].push((j, weight));
                }
            }
            for (a, members) in members.iter().enumerate() {
                let with =
                    |j: usize, w: f64| members.iter().map(move |&(k, v)| w * v * covariance[[j, k]]).sum::<f64>();
                let variance: f64 = members.iter().map(|&(j, w)| with(j, w)).sum();
                let goal: f64 = members.iter().map(|&(j, w)| w.abs() * std[j]).sum();
                let stretch = if variance > 0.0 && goal > 0.0 { goal / variance.sqrt() } else { 1.0 };
                for &(j, weight) in members {
                    rows.column_mut(j).scaled_add(stretch * weight, &w.column(a));
                    means.scaled_add(weight * self.mean[j], &w.column(a));
                }
            }
            means += &b;
        }
        affine_moments(&rows, means, covariance.view())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Window;

    /// Four channels in two groups, a kernel of 1 × 2: input p·4 + c of a patch is channel c at position p.
    #[test]
    fn second_moments_stand_as_the_weights_columns_do() {
        let window = Window { kernel: [1, 2], ..Window::square(1, 1, 0) };
        let op = Op::Conv2d { in_channels: 4, out_channels: 6, window, groups: 2, bias: false };
        let x: Vec<f32> = (1..=8).map(|k| k as f32).collect();
        let outer = Array2::from_shape_fn((8, 8), |(i, j)| x[i] * x[j]);
        let mut moments = Moments::zeros(8);
        moments.add_batch(1, &x, outer.view());
        let found = by_columns(&op, &moments).expect("moments of this layer");
        // Group 1 reads channels 2 and 3: 3 and 7 are channel 2 at both positions, 4 and 8 are channel 3.
        for (group, columns) in found.iter().zip([[1.0, 5.0, 2.0, 6.0], [3.0, 7.0, 4.0, 8.0]]) {
            assert_eq!(group, Array2::from_shape_fn((4, 4), |(i, j)| columns[i] * columns[j]));
        }
        assert!(by_columns(&op, &Moments::zeros(7)).is_none() && by_rows(&op, &Moments::zeros(8)).is_none());
        let mut gradients = Moments::zeros(6);
        let outer = Array2::from_shape_fn((6, 6), |(i, j)| x[i] * x[j]);
        gradients.add_batch(1, &[0.0; 6], outer.view());
        let found = by_rows(&op, &gradients).expect("gradients at this layer");
        assert_eq!(found[1], Array2::from_shape_fn((3, 3), |(i, j)| f64::from(x[3 + i] * x[3 + j])));
    }
}
