//! The tensors of the merged network: W* = Σᵢ Mᵢ Wᵢ Uᵢ, in f64 and rounded once.

use super::{
    Crossing, View,
    maps::{Map, Member},
};
use crate::graph::{Node, Op, Param, Segment};
use crate::state_dict::{feature_axis_back, feature_rows};
use ndarray::{Array2, ArrayD, ArrayView2, Axis, IxDyn, Slice, linalg::general_mat_mul};
use std::collections::BTreeMap;
use std::ops::Range;

/// Which copy of a layer a node of the merged graph is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The only one.
    Shared,
    /// Model i's summand of a merged value.
    Part(usize),
    /// Model i's own.
    Own(usize),
}

/// A piece of a feature axis: where it begins in the source models and in the merged one, and its features' maps.
struct Piece<'a> {
    from: usize,
    to: usize,
    dim: usize,
    width: usize,
    /// Numbers in a row that belong to one feature.
    run: usize,
    map: Option<&'a Map<'a>>,
}

impl Piece<'_> {
    /// Its numbers along the source models' axis.
    fn source(&self) -> Slice {
        Slice::from(self.from..self.from + self.dim * self.run)
    }

    /// Its numbers along the merged network's axis.
    fn target(&self) -> Slice {
        Slice::from(self.to..self.to + self.width * self.run)
    }
}

impl View<'_> {
    /// Parameters and buffers of one copy of `node`, by their names within its op.
    pub(super) fn tensors(&self, node: &Node, role: Role) -> Vec<(&'static str, ArrayD<f32>)> {
        if let (true, Role::Own(i)) = (self.spaces.axes[&node.name].is_empty(), role) {
            let own = |param: Param| (param.name, self.models[i].weights[&node.tensor(param.name)].clone());
            return node.op.params().into_iter().map(own).collect();
        }
        let op = self.resized(node);
        if let Op::Attention { heads, .. } = node.op {
            let tensors = op.params().into_iter().map(|param| (param.name, self.per_head(node, &param, heads, role)));
            return tensors.collect();
        }
        op.params()
            .into_iter()
            .map(|param| {
                let flat = if node.op.mixes() && param.name == "weight" {
                    self.mixing(node, &op, param.name, role)
                } else {
                    self.per_feature(node, param.name, role)
                };
                let mut shape = param.shape.clone();
                let features = shape.remove(op.feature_axis());
                shape.insert(0, features);
                let numbers = flat.iter().map(|&x| x as f32).collect();
                let tensor = ArrayD::from_shape_vec(IxDyn(&shape), numbers);
                let tensor = tensor.expect("the merged op's shape is the merged axes' widths");
                (param.name, feature_axis_back(tensor, op.feature_axis()))
            })
            .collect()
    }

    /// Numbers along the feature axis of a model's own value.
    pub(super) fn n_numbers(&self, value: &str) -> usize {
        self.spaces.axes[value].iter().map(|segment| self.maps.dim(segment.space) * segment.repeat).sum()
    }

    /// Uᵢ `[numbers, d']` or Mᵢ `[d', numbers]` of a whole value, whose numbers stand as in the model.
    ///
    /// # Panics
    /// For a copy that is every model's.
    pub(super) fn crossing(&self, value: &str, crossing: Crossing, role: Role) -> ArrayD<f32> {
        let (Role::Own(i) | Role::Part(i)) = role else { panic!("a crossing is one model's") };
        let axis = &self.spaces.axes[value];
        let pieces = self.pieces(axis, 1);
        let width = self.maps.axis_width(axis);
        let whole = Array2::eye(self.n_numbers(value));
        let matrix = match crossing {
            Crossing::Unmerge => unmerge_columns(&whole, &pieces, i, width),
            Crossing::Merge => merge_rows(&whole, &pieces, i, width),
        };
        let along = Axis(usize::from(crossing == Crossing::Merge));
        let placed = match self.spaces.orders.get(value) {
            Some(order) => {
                let mut at = vec![0; order.len()];
                order.iter().enumerate().for_each(|(k, &number)| at[number] = k);
                matrix.select(along, &at)
            }
            None => matrix,
        };
        placed.mapv(|x| x as f32).into_dyn()
    }

    /// A source tensor as `[features made, rest]`, the features in the order of the made value's axis.
    fn source(&self, model: usize, node: &Node, param: &str) -> Array2<f32> {
        let tensor = &self.models[model].weights[&node.tensor(param)];
        let rows = feature_rows(tensor, node.op.feature_axis());
        match self.spaces.orders.get(&node.name) {
            Some(order) => rows.select(Axis(0), order),
            None => rows,
        }
    }

    /// A source weight as `[features made, numbers read · kernel]`, as if every feature were read by every other: the
    /// groups of a convolution stand along the diagonal.
    fn source_weight(&self, model: usize, node: &Node, param: &str, kernel: usize) -> Array2<f64> {
        let own = self.source(model, node, param).mapv(f64::from);
        let whole = spread_groups(own, n_groups(&node.op));
        match self.spaces.orders.get(&node.inputs[0]) {
            Some(order) => {
                let columns: Vec<usize> = order.iter().flat_map(|&at| at * kernel..(at + 1) * kernel).collect();
                whole.select(Axis(1), &columns)
            }
            None => whole,
        }
    }

    /// The pieces of an axis on which one feature occupies `inner` numbers.
    fn pieces(&self, axis: &[Segment], inner: usize) -> Vec<Piece<'_>> {
        let (mut from, mut to) = (0, 0);
        axis.iter()
            .map(|segment| {
                let [dim, width] = [self.maps.dim(segment.space), self.maps.width(segment.space)];
                let run = segment.repeat * inner;
                let piece = Piece { from, to, dim, width, run, map: self.maps.get(segment.space) };
                from += dim * run;
                to += width * run;
                piece
            })
            .collect()
    }

    /// Biases, normalisation, depthwise weights, learned tensors: M only.
    fn per_feature(&self, node: &Node, param: &str, role: Role) -> Array2<f64> {
        let axis = &self.spaces.axes[&node.name];
        let merges = axis.iter().any(|segment| self.maps.get(segment.space).is_some());
        let sources: BTreeMap<usize, Array2<f32>> =
            self.contributors(role, merges).map(|i| (i, self.source(i, node, param))).collect();
        let n_numbers = sources.values().next().map_or(0, Array2::ncols);
        let normalises = node.op.normalises_samples() && param == "weight";
        let mut merged = Array2::zeros((self.maps.axis_width(axis), n_numbers));
        for piece in self.pieces(axis, 1) {
            let models = self.contributors(role, piece.map.is_some());
            for i in models {
                let source = sources[&i].slice_axis(Axis(0), piece.source());
                let mut target = merged.slice_axis_mut(Axis(0), piece.target());
                if let Some(merge) = piece.map.and_then(|map| map.merge_of(i)) {
                    // A variance stays one when features are mixed with signs: as if they were independent and equal.
                    let sign = |m: f32| if param == "running_var" { m.abs() } else { m };
                    let merge = merge.mapv(|m| f64::from(sign(m)));
                    for position in 0..piece.run {
                        let every = Slice::new(position as isize, None, piece.run as isize);
                        let from = source.slice_axis(Axis(0), every).mapv(f64::from);
                        general_mat_mul(1.0, &merge, &from, 1.0, &mut target.slice_axis_mut(Axis(0), every));
                    }
                    continue;
                }
                let members: Vec<Member> = match piece.map {
                    Some(map) => map.members_of(i).collect(),
                    None => (0..piece.dim).map(|k| Member { feature: k, group: k, count: 1.0 }).collect(),
                };
                for (member, position) in members.iter().flat_map(|of| (0..piece.run).map(move |p| (*of, p))) {
                    let mut sum = target.row_mut(member.group * piece.run + position);
                    let numbers = source.row(member.feature * piece.run + position);
                    sum.zip_mut_with(&numbers, |total, &x| *total += member.count * f64::from(x));
                }
            }
            let mut target = merged.slice_axis_mut(Axis(0), piece.target());
            if let Some(map) = piece.map.filter(|map| map.merge_of(0).is_none()) {
                for (row, mut numbers) in target.rows_mut().into_iter().enumerate() {
                    numbers /= map.totals[row / piece.run];
                }
            }
            // Averages spread less than what they are averages of, and the norm would take that away.
            if let (true, Some(spread)) = (normalises, piece.map.and_then(|map| map.spread)) {
                target *= spread;
            }
        }
        merged
    }

    /// What an attention has for every head: it moves with its head, and is the mean of those that become one.
    fn per_head(&self, node: &Node, param: &Param, heads: usize, role: Role) -> ArrayD<f32> {
        // Values that are put together from parts are each model's own.
        let (width, map) = match self.spaces.axes[&node.name][..] {
            [segment] => (self.maps.dim(segment.space) / heads, self.maps.get(segment.space)),
            _ => (0, None),
        };
        let mut sum: ArrayD<f64> = ArrayD::zeros(IxDyn(&param.shape));
        let mut counts = vec![0_u32; param.shape[1]];
        for i in self.contributors(role, map.is_some()) {
            let own = &self.models[i].weights[&node.tensor(param.name)];
            for (head, numbers) in own.axis_iter(Axis(1)).enumerate() {
                let of_all = own.shape()[1] == 1;
                let to = map.filter(|_| !of_all).map_or(head, |map| map.group_of(i, head * width) / width);
                counts[to] += 1;
                sum.index_axis_mut(Axis(1), to).zip_mut_with(&numbers, |total, &x| *total += f64::from(x));
            }
        }
        for (mut numbers, n) in sum.axis_iter_mut(Axis(1)).zip(counts) {
            numbers /= f64::from(n.max(1));
        }
        sum.mapv(|x| x as f32)
    }

    /// The models whose tensors a node's merged, or separate, features are made of.
    fn contributors(&self, role: Role, merged: bool) -> Range<usize> {
        match role {
            // A model's own copy may hold merged features beside its own: those are every model's.
            Role::Own(i) if !merged => i..i + 1,
            Role::Shared | Role::Own(_) => 0..self.models.len(),
            Role::Part(i) => i..i + 1,
        }
    }

    /// Weights of convolutions and Linear layers, `[O', I'·kH·kW]`, or with groups `[O', I'/groups·kH·kW]`.
    fn mixing(&self, node: &Node, op: &Op, param: &str, role: Role) -> Array2<f64> {
        let kernel = match &node.op {
            Op::Conv2d { window, .. } => window.kernel[0] * window.kernel[1],
            _ => 1,
        };
        let made = self.pieces(&self.spaces.axes[&node.name], 1);
        let read = self.pieces(&self.spaces.axes[&node.inputs[0]], kernel);
        let [height, width] = [&made, &read].map(|pieces| pieces.iter().map(|p| p.width * p.run).sum());
        let mut merged = Array2::zeros((height, width));
        let merges = matches!(role, Role::Shared | Role::Part(_));
        // What one layer writes is merged as a whole or not at all.
        for i in self.contributors(role, merges && made.iter().any(|piece| piece.map.is_some())) {
            let source = self.source_weight(i, node, param, kernel);
            for piece in &made {
                let rows = source.slice_axis(Axis(0), piece.source());
                let mut target = merged.slice_axis_mut(Axis(0), piece.target());
                let map = piece.map.filter(|_| merges);
                if let Some(merge) = map.and_then(|map| map.merge_of(i)) {
                    let unmerged = unmerge_columns(&rows.to_owned(), &read, i, width);
                    general_mat_mul(1.0, &merge.mapv(f64::from), &unmerged, 1.0, &mut target);
                    continue;
                }
                let (at, summed) = sum_rows(rows, map.map(|map| map.members_of(i)));
                let unmerged = unmerge_columns(&summed, &read, i, width);
                for (from, &to) in unmerged.rows().into_iter().zip(&at) {
                    target.row_mut(to).scaled_add(1.0, &from);
                }
            }
        }
        for piece in &made {
            if let Some(map) = piece.map.filter(|map| merges && map.merge_of(0).is_none()) {
                let mut target = merged.slice_axis_mut(Axis(0), piece.target());
                for (mut row, &total) in target.rows_mut().into_iter().zip(&map.totals) {
                    row /= total;
                }
            }
        }
        gather_groups(merged, n_groups(op))
    }
}

/// The groups of a convolution, 1 for a Linear layer.
pub(super) fn n_groups(op: &Op) -> usize {
    match op {
        Op::Conv2d { groups, .. } => *groups,
        _ => 1,
    }
}

/// `[O, I/G]` with group g of the outputs reading group g of the inputs, as `[O, I]`.
pub(super) fn spread_groups<T: Clone + Default>(own: Array2<T>, groups: usize) -> Array2<T> {
    if groups == 1 {
        return own;
    }
    let (height, width) = own.dim();
    let rows = height / groups;
    let mut whole = Array2::default((height, width * groups));
    for (o, row) in own.rows().into_iter().enumerate() {
        let first = o / rows * width;
        whole.row_mut(o).slice_axis_mut(Axis(0), Slice::from(first..first + width)).assign(&row);
    }
    whole
}

/// The blocks on the diagonal of `[O, I]`, as `[O, I/G]`.
pub(super) fn gather_groups<T: Clone>(whole: Array2<T>, groups: usize) -> Array2<T> {
    if groups == 1 {
        return whole;
    }
    let [rows, width] = [whole.nrows() / groups, whole.ncols() / groups];
    Array2::from_shape_fn((whole.nrows(), width), |(o, i)| whole[[o, o / rows * width + i]].clone())
}

/// Mᵢ Wᵢ before division by what the groups count, without its empty rows: which rows, and the rows.
fn sum_rows(source: ArrayView2<'_, f64>, members: Option<impl Iterator<Item = Member>>) -> (Vec<usize>, Array2<f64>) {
    let Some(members) = members else {
        return ((0..source.nrows()).collect(), source.to_owned());
    };
    let members: Vec<Member> = members.filter(|member| member.count > 0.0).collect();
    let mut rows: Vec<usize> = members.iter().map(|member| member.group).collect();
    rows.sort_unstable();
    rows.dedup();
    let mut summed = Array2::zeros((rows.len(), source.ncols()));
    for Member { feature, group, count } in members {
        let row = rows.partition_point(|&r| r < group);
        summed.row_mut(row).scaled_add(count, &source.row(feature));
    }
    (rows, summed)
}

/// Mᵢ W, piece by piece of the axis that the layer writes.
fn merge_rows(weights: &Array2<f64>, pieces: &[Piece<'_>], i: usize, width: usize) -> Array2<f64> {
    let mut merged = Array2::<f64>::zeros((width, weights.ncols()));
    for piece in pieces {
        let rows = weights.slice_axis(Axis(0), piece.source());
        let mut target = merged.slice_axis_mut(Axis(0), piece.target());
        match piece.map.map(|map| (map, map.merge_of(i))) {
            None => target.assign(&rows),
            Some((_, Some(merge))) => general_mat_mul(1.0, &merge.mapv(f64::from), &rows, 0.0, &mut target),
            Some((map, None)) => {
                for Member { feature, group, count } in map.members_of(i) {
                    target.row_mut(group).scaled_add(count / map.totals[group], &rows.row(feature));
                }
            }
        }
    }
    merged
}

/// W Uᵢ, piece by piece of the axis that the layer reads.
fn unmerge_columns(weights: &Array2<f64>, pieces: &[Piece<'_>], i: usize, width: usize) -> Array2<f64> {
    let n = weights.nrows();
    let mut unmerged = Array2::<f64>::zeros((n, width));
    for piece in pieces {
        let source = weights.slice_axis(Axis(1), piece.source());
        let mut target = unmerged.slice_axis_mut(Axis(1), piece.target());
        let Some(map) = piece.map else {
            target.assign(&source);
            continue;
        };
        if let Some(unmerge) = map.unmerge_of(i) {
            let unmerge = unmerge.mapv(f64::from);
            for position in 0..piece.run {
                let every = Slice::new(position as isize, None, piece.run as isize);
                let from = source.slice_axis(Axis(1), every);
                let mut to = target.slice_axis_mut(Axis(1), every);
                general_mat_mul(1.0, &from, &unmerge, 0.0, &mut to);
            }
        } else {
            for Member { feature, group, .. } in map.members_of(i) {
                for position in 0..piece.run {
                    let from = source.index_axis(Axis(1), feature * piece.run + position);
                    let mut to = target.index_axis_mut(Axis(1), group * piece.run + position);
                    to += &from;
                }
            }
        }
    }
    unmerged
}
