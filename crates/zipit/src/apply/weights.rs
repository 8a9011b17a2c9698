//! The tensors of the merged network: W* = Σᵢ Mᵢ Wᵢ Uᵢ, in f64 and rounded once.

use super::{Surgery, maps::Map};
use crate::graph::{Node, Op, Segment};
use ndarray::{Array2, ArrayD, ArrayView2, Axis, CowArray, Ix2, IxDyn, Slice, linalg::general_mat_mul};
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

impl Surgery<'_> {
    /// Parameters and buffers of one copy of `node`, by their names within the module.
    pub(super) fn tensors(&self, node: &Node, role: Role) -> Vec<(&'static str, ArrayD<f32>)> {
        let params = self.resized(node).params();
        params
            .into_iter()
            .map(|param| {
                let flat = if node.op.mixes() && param.name == "weight" {
                    self.mixing(node, param.name, role)
                } else {
                    self.per_feature(node, param.name, role)
                };
                let numbers = flat.iter().map(|&x| x as f32).collect();
                let tensor = ArrayD::from_shape_vec(IxDyn(&param.shape), numbers);
                (param.name, tensor.expect("the merged op's shape is the merged axes' widths"))
            })
            .collect()
    }

    /// A source tensor as `[first axis, rest]`.
    fn source(&self, model: usize, node: &Node, param: &str) -> CowArray<'_, f32, Ix2> {
        let module = node.module.as_deref().expect("a node with parameters has a module");
        let tensor = &self.models[model].weights[&format!("{module}.{param}")];
        let rows = tensor.shape()[0];
        tensor.to_shape((rows, tensor.len() / rows)).expect("the same number of elements")
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

    /// Biases, batch normalisation and depthwise weights: M only.
    fn per_feature(&self, node: &Node, param: &str, role: Role) -> Array2<f64> {
        let axis = &self.spaces.axes[&node.name];
        let inner = self.source(0, node, param).ncols();
        let mut merged = Array2::zeros((self.maps.axis_width(axis), inner));
        for piece in self.pieces(axis, 1) {
            let models = self.contributors(role, piece.map.is_some());
            for i in models {
                let source = self.source(i, node, param);
                let source = source.slice_axis(Axis(0), piece.source());
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
                for (row, numbers) in source.rows().into_iter().enumerate() {
                    let (feature, position) = (row / piece.run, row % piece.run);
                    let to = piece.map.map_or(feature, |map| map.groups_of(i)[feature] as usize);
                    let mut sum = target.row_mut(to * piece.run + position);
                    sum.zip_mut_with(&numbers, |total, &x| *total += f64::from(x));
                }
            }
            if let Some(map) = piece.map.filter(|map| map.merge_of(0).is_none()) {
                let mut target = merged.slice_axis_mut(Axis(0), piece.target());
                for (row, mut numbers) in target.rows_mut().into_iter().enumerate() {
                    numbers /= map.sizes[row / piece.run] as f64;
                }
            }
        }
        merged
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

    /// Weights of convolutions and Linear layers, `[O', I'·kH·kW]`.
    fn mixing(&self, node: &Node, param: &str, role: Role) -> Array2<f64> {
        let made = &self.spaces.axes[&node.name];
        let read = &self.spaces.axes[&node.inputs[0]];
        let out_map = match role {
            Role::Own(_) => None,
            Role::Shared | Role::Part(_) => self.maps.get(made[0].space),
        };
        let kernel = match &node.op {
            Op::Conv2d { window, .. } => window.kernel[0] * window.kernel[1],
            _ => 1,
        };
        let pieces = self.pieces(read, kernel);
        let mut merged = Array2::zeros((self.maps.axis_width(made), self.maps.axis_width(read) * kernel));
        for i in self.contributors(role, out_map.is_some()) {
            let source = self.source(i, node, param);
            if let Some(merge) = out_map.and_then(|map| map.merge_of(i)) {
                let unmerged = unmerge_columns(&source.mapv(f64::from), &pieces, i, merged.ncols());
                general_mat_mul(1.0, &merge.mapv(f64::from), &unmerged, 1.0, &mut merged);
                continue;
            }
            let (rows, summed) = sum_rows(source.view(), out_map.map(|map| map.groups_of(i)));
            let unmerged = unmerge_columns(&summed, &pieces, i, merged.ncols());
            for (from, &to) in unmerged.rows().into_iter().zip(&rows) {
                merged.row_mut(to).scaled_add(1.0, &from);
            }
        }
        if let Some(map) = out_map.filter(|map| map.merge_of(0).is_none()) {
            for (mut row, &size) in merged.rows_mut().into_iter().zip(&map.sizes) {
                row /= size as f64;
            }
        }
        merged
    }
}

/// Mᵢ Wᵢ before division by the groups' sizes, without its empty rows: which rows, and the rows.
fn sum_rows(source: ArrayView2<'_, f32>, groups: Option<&[u32]>) -> (Vec<usize>, Array2<f64>) {
    let Some(groups) = groups else {
        return ((0..source.nrows()).collect(), source.mapv(f64::from));
    };
    let mut rows: Vec<usize> = groups.iter().map(|&g| g as usize).collect();
    rows.sort_unstable();
    rows.dedup();
    let mut summed = Array2::zeros((rows.len(), source.ncols()));
    for (numbers, &group) in source.rows().into_iter().zip(groups) {
        let row = rows.partition_point(|&r| r < group as usize);
        summed.row_mut(row).zip_mut_with(&numbers, |total, &x| *total += f64::from(x));
    }
    (rows, summed)
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
            for (feature, &group) in map.groups_of(i).iter().enumerate() {
                for position in 0..piece.run {
                    let from = source.index_axis(Axis(1), feature * piece.run + position);
                    let mut to = target.index_axis_mut(Axis(1), group as usize * piece.run + position);
                    to += &from;
                }
            }
        }
    }
    unmerged
}
