//! Single features: opened by layers, tied by sums, told apart by the values that hold them.

use crate::graph::Op;
use std::collections::BTreeMap;

/// One entry of a value's feature axis: a feature, and how many numbers in a row are its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub feature: usize,
    pub repeat: usize,
}

/// A value's feature axis.
pub(super) type Axis = Vec<Entry>;

/// Union-find over all features of a graph.
#[derive(Default)]
pub(super) struct Features {
    parent: Vec<usize>,
}

/// Features that are held by the same values, as classes numbered in the order in which values hold them.
pub(super) struct Classes {
    /// Number of features of each.
    pub sizes: Vec<usize>,
    /// Class of each root, and its place in the class: the order in which the first value holds them.
    pub of: Vec<(usize, usize)>,
}

impl Features {
    pub fn open(&mut self, n: usize) -> Axis {
        let first = self.parent.len();
        self.parent.extend(first..first + n);
        (first..first + n).map(|feature| Entry { feature, repeat: 1 }).collect()
    }

    pub fn root(&self, mut feature: usize) -> usize {
        while self.parent[feature] != feature {
            feature = self.parent[feature];
        }
        feature
    }

    fn tie(&mut self, a: usize, b: usize) {
        let (root_a, root_b) = (self.root(a), self.root(b));
        let root = root_a.min(root_b);
        self.parent[root_a.max(root_b)] = root;
        // Short paths: every later look is one or two steps.
        self.parent[a] = root;
        self.parent[b] = root;
    }

    fn tie_axes(&mut self, first: &Axis, other: &Axis) -> Result<(), String> {
        let alike = first.len() == other.len() && first.iter().zip(other).all(|(a, b)| a.repeat == b.repeat);
        if !alike {
            return Err("its inputs' features are put together from different parts, so they cannot be tied".into());
        }
        first.iter().zip(other).for_each(|(a, b)| self.tie(a.feature, b.feature));
        Ok(())
    }

    /// The feature axis of what `op` makes of values with the axes `read`; the first one has so many `positions`.
    pub fn derive(&mut self, op: &Op, read: &[&Axis], positions: usize) -> Result<Axis, String> {
        Ok(match op {
            Op::Conv2d { out_channels, .. } if op.mixes() => self.open(*out_channels),
            Op::Linear { out_features, .. } => self.open(*out_features),
            Op::Follow { shape, axis } => self.open(shape[*axis]),
            Op::Stored { .. } | Op::Call { .. } => vec![],
            Op::Conv2d { .. }
            | Op::BatchNorm2d { .. }
            | Op::LayerNorm { .. }
            | Op::PowerMeanNorm { .. }
            | Op::GroupNorm { .. }
            | Op::Relu
            | Op::Activation { .. }
            | Op::MaxPool2d { .. }
            | Op::AvgPool2d { .. }
            | Op::AdaptiveAvgPool2d { .. }
            | Op::Mean
            | Op::Tokens
            | Op::SelectToken { .. }
            | Op::PrependTokens { .. }
            | Op::PositionEmbedding { .. }
            | Op::LayerScale { .. }
            | Op::Affine { .. }
            | Op::Positions { .. }
            | Op::Pad { .. } => read[0].clone(),
            Op::Flatten => read[0].iter().map(|e| Entry { repeat: e.repeat * positions, ..*e }).collect(),
            Op::Add | Op::Mul | Op::Join { .. } => {
                for other in &read[1..] {
                    self.tie_axes(read[0], other)?;
                }
                read[0].clone()
            }
            Op::Attention { .. } => read[2].clone(),
            Op::Concat => read.iter().flat_map(|axis| axis.iter().copied()).collect(),
            Op::Slice { ranges } => slice(read[0], ranges)?,
            Op::ChannelShuffle { groups } => {
                if read[0].iter().any(|e| e.repeat != 1) {
                    return Err("shuffles flattened features".into());
                }
                let per_group = read[0].len() / groups;
                (0..read[0].len()).map(|k| read[0][k % groups * per_group + k / groups]).collect()
            }
        })
    }

    /// Classes of features by the values that hold them.
    pub fn classes(&self, axes: &[&Axis]) -> Classes {
        let n = self.parent.len();
        let mut class = vec![0; n];
        let mut size = vec![n];
        let mut seen_at = vec![usize::MAX; n];
        for (at, axis) in axes.iter().enumerate() {
            let mut held: Vec<usize> = Vec::new();
            for entry in *axis {
                let root = self.root(entry.feature);
                if std::mem::replace(&mut seen_at[root], at) != at {
                    held.push(root);
                }
            }
            let mut n_held = BTreeMap::new();
            for &root in &held {
                *n_held.entry(class[root]).or_insert(0) += 1;
            }
            let mut split = BTreeMap::new();
            for (&old, &count) in &n_held {
                if count == size[old] {
                    continue;
                }
                split.insert(old, size.len());
                size[old] -= count;
                size.push(count);
            }
            for &root in &held {
                class[root] = split.get(&class[root]).copied().unwrap_or(class[root]);
            }
        }
        let mut number = vec![usize::MAX; size.len()];
        let mut sizes = Vec::new();
        let mut of = vec![(usize::MAX, 0); n];
        for entry in axes.iter().copied().flatten() {
            let root = self.root(entry.feature);
            let old = class[root];
            if number[old] == usize::MAX {
                number[old] = sizes.len();
                sizes.push(0);
            }
            if of[root].0 == usize::MAX {
                of[root] = (number[old], sizes[number[old]]);
                sizes[number[old]] += 1;
            }
        }
        Classes { sizes, of }
    }
}

/// The entries whose numbers the ranges cover.
fn slice(axis: &Axis, ranges: &[[usize; 2]]) -> Result<Axis, String> {
    let mut starts = vec![0];
    for entry in axis {
        starts.push(starts[starts.len() - 1] + entry.repeat);
    }
    let mut picked = Vec::new();
    for range in ranges {
        let [Ok(from), Ok(to)] = range.map(|number| starts.binary_search(&number)) else {
            return Err(format!("takes {} to {}, in the middle of a flattened feature", range[0], range[1]));
        };
        picked.extend_from_slice(&axis[from..to]);
    }
    Ok(picked)
}
