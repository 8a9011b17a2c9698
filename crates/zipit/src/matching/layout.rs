//! Which space lies along which axis of every learned tensor, as data: all that matching by weights knows of a network.
//!
//! A tensor is read as a matrix `[rows, columns]`: `[O, I·kH·kW]` for a convolution, `[O, I]` for a Linear layer, `[C, 1]`
//! for biases and normalisation, `[C, kH·kW]` for a depthwise convolution. Where an axis is put together from
//! several segments (Concat), the matrix falls into blocks of one space by one space.

use crate::graph::{Node, Op, Segment, SpaceId, Spaces};
use crate::state_dict::feature_rows;
use crate::{Model, StateDict};
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, CowArray, Ix2, Slice};

/// One side of a block: the numbers along it are `dim` features, each of them `run` numbers in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Side {
    /// `None`: these are no features (a depthwise kernel); `dim` is 1.
    space: Option<SpaceId>,
    offset: usize,
    dim: usize,
    run: usize,
}

/// A block of a learned tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    tensor: String,
    /// Which of its axes the rows are.
    axis: usize,
    sides: [Side; 2],
}

/// A block that holds a space, and the axis (0: rows, 1: columns) along which it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    block: usize,
    axis: usize,
}

/// The blocks of a graph's learned tensors. Running statistics are measured, not learned, and left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    blocks: Vec<Block>,
    /// For each space, where it lies.
    places: Vec<Vec<Place>>,
}

/// Where the features of one model's space stand among common coordinates.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Axes {
    /// The coordinate of each feature, `[d]`; features of one coordinate are added up.
    pub to: Vec<u32>,
    /// What the sum at each coordinate is multiplied by, `[d']`.
    pub scale: Vec<f64>,
}

impl Axes {
    /// Feature j at coordinate j.
    pub(super) fn identity(d: usize) -> Self {
        Self { to: (0..d as u32).collect(), scale: vec![1.0; d] }
    }
}

impl Place {
    /// Whether the space lies along the block's rows.
    pub(super) fn is_rows(self) -> bool {
        self.axis == 0
    }
}

impl Layout {
    /// Of the layers that all `models` have alike; heads may differ, and are left out then. The spaces are the first's.
    pub(super) fn new(models: &[&Model], spaces: &Spaces) -> Self {
        let mut blocks = Vec::new();
        let alike = |node: &&Node| {
            let by_feature = !matches!(node.op, Op::Attention { .. }) && !spaces.axes[&node.name].is_empty();
            by_feature && models.iter().all(|model| model.graph.node(&node.name) == Some(node))
        };
        for node in models[0].graph.nodes.iter().filter(alike) {
            for param in node.op.params().into_iter().filter(|param| param.learned) {
                let axis = node.op.feature_axis();
                let n_rows = param.shape[axis];
                let n_columns = param.shape.iter().product::<usize>().checked_div(n_rows).unwrap_or(0);
                let rows = sides(&spaces.axes[&node.name], spaces, n_rows);
                let columns = match (node.op.mixes(), param.name) {
                    (true, "weight") => sides(&spaces.axes[&node.inputs[0]], spaces, n_columns),
                    _ => vec![Side { space: None, offset: 0, dim: 1, run: n_columns }],
                };
                for row in rows {
                    let tensor = node.tensor(param.name);
                    let block = |&column: &Side| Block { tensor: tensor.clone(), axis, sides: [row, column] };
                    blocks.extend(columns.iter().map(block));
                }
            }
        }
        let mut places = vec![Vec::new(); spaces.spaces.len()];
        for (block, Block { sides, .. }) in blocks.iter().enumerate() {
            for (axis, side) in sides.iter().enumerate() {
                if let Some(space) = side.space {
                    places[space].push(Place { block, axis });
                }
            }
        }
        Self { blocks, places }
    }

    /// Every block once, by its rows.
    pub(super) fn blocks(&self) -> impl Iterator<Item = Place> {
        (0..self.blocks.len()).map(|block| Place { block, axis: 0 })
    }

    /// Where a space lies.
    pub(super) fn places(&self, space: SpaceId) -> &[Place] {
        &self.places[space]
    }

    /// The spaces that share a block with this one, itself among them where it lies along both axes of one.
    pub(super) fn neighbours(&self, space: SpaceId) -> impl Iterator<Item = SpaceId> {
        self.places[space].iter().filter_map(|place| self.blocks[place.block].sides[1 - place.axis].space)
    }

    /// Whether the place's block holds its space along the other axis too.
    pub(super) fn is_square(&self, place: Place) -> bool {
        let [rows, columns] = self.blocks[place.block].sides;
        rows.space == columns.space
    }

    /// The features of the place's space, one a row, `[d, rest]`: the numbers of the block that belong to each feature,
    /// with the other axis in common coordinates, as `axes` (by space) put them.
    ///
    /// For a layer W `[O, I]` and the space it writes this is `W Cᵀ`, for the one it reads `Wᵀ Cᵀ`, with C `[d', d]` the
    /// other space's coordinates: `C[g, j] = scale[g]` where feature j stands at g.
    pub(super) fn slices(&self, model: &Model, place: Place, axes: &[Axes]) -> Array2<f64> {
        let block = &self.blocks[place.block];
        let [own, other] = [block.sides[place.axis], block.sides[1 - place.axis]];
        let rows_first = place.axis == 0;
        let source = block.source(&model.weights);
        let source = if rows_first { source.view() } else { source.t() };
        let unmoved = Axes::identity(other.dim);
        let across = other.space.map_or(&unmoved, |space| &axes[space]);
        let mut slices = Array2::zeros((own.dim, own.run * across.scale.len() * other.run));
        for (j, mut slice) in slices.outer_iter_mut().enumerate() {
            let from = source.slice_axis(Axis(0), Slice::from(j * own.run..(j + 1) * own.run));
            let shape = (own.run, across.scale.len() * other.run);
            let to = ArrayViewMut2::from_shape(shape, slice.as_slice_mut().expect("a row is contiguous"));
            gather(from, to.expect("a row holds this many numbers"), across, other.run);
        }
        slices
    }

    /// [`slices`](Self::slices) with their own axis in common coordinates too, `[d', rest]`.
    pub(super) fn in_common(&self, model: &Model, place: Place, axes: &[Axes]) -> Array2<f64> {
        let slices = self.slices(model, place, axes);
        let Some(space) = self.blocks[place.block].sides[place.axis].space else { return slices };
        let Axes { to, scale } = &axes[space];
        let mut common = Array2::zeros((scale.len(), slices.ncols()));
        for (slice, &coordinate) in slices.outer_iter().zip(to) {
            common.row_mut(coordinate as usize).scaled_add(scale[coordinate as usize], &slice);
        }
        common
    }
}

impl Block {
    fn source<'a>(&self, weights: &'a StateDict) -> CowArray<'a, f32, Ix2> {
        let tensor = &weights[&self.tensor];
        let n_rows = tensor.shape()[self.axis];
        let mut matrix: CowArray<'a, f32, Ix2> = if self.axis == 0 {
            tensor.to_shape((n_rows, tensor.len() / n_rows)).expect("the same number of elements")
        } else {
            feature_rows(tensor, self.axis).into()
        };
        for (axis, side) in self.sides.iter().enumerate() {
            matrix.slice_axis_inplace(Axis(axis), Slice::from(side.offset..side.offset + side.dim * side.run));
        }
        matrix
    }
}

/// The columns of `from` added to their coordinates in `to`, then scaled.
fn gather(from: ArrayView2<'_, f32>, mut to: ArrayViewMut2<'_, f64>, across: &Axes, run: usize) {
    for (from, mut to) in from.outer_iter().zip(to.outer_iter_mut()) {
        for (k, &coordinate) in across.to.iter().enumerate() {
            let scale = across.scale[coordinate as usize];
            for q in 0..run {
                to[coordinate as usize * run + q] += scale * f64::from(from[k * run + q]);
            }
        }
    }
}

/// The segments of an axis of `len` numbers as sides. One feature occupies more numbers than the segment repeats it where
/// a kernel follows it.
fn sides(axis: &[Segment], spaces: &Spaces, len: usize) -> Vec<Side> {
    let dim = |segment: &Segment| spaces.spaces[segment.space].dim;
    let n_features: usize = axis.iter().map(|segment| dim(segment) * segment.repeat).sum();
    let kernel = len.checked_div(n_features).unwrap_or(0);
    let mut offset = 0;
    axis.iter()
        .map(|segment| {
            let side = Side { space: Some(segment.space), offset, dim: dim(segment), run: segment.repeat * kernel };
            offset += side.dim * side.run;
            side
        })
        .collect()
}
