//! What a value of the merged network stands for: M·[y¹; …; yᴺ], feature by feature.

use super::{View, weights::Role};
use ndarray::Array2;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How the features of one copy of a value are made of the models' features at the same place.
#[derive(Debug, Clone, PartialEq)]
pub struct Blend {
    /// The parts of its feature axis, in order.
    pub pieces: Vec<Piece>,
    /// The only model that contributes to it, where it is one summand of a merged value.
    pub only: Option<usize>,
    /// Where in the models' value each number of the pieces is, unless they stand in this order.
    pub order: Option<Arc<Vec<usize>>>,
}

/// Part of a feature axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// Features in each model.
    pub dim: usize,
    /// Features in the merged network.
    pub width: usize,
    /// Numbers per feature: 1, or H·W after Flatten.
    pub repeat: usize,
    /// What they are.
    pub made: Blended,
}

/// What the features of a piece are.
#[derive(Debug, Clone, PartialEq)]
pub enum Blended {
    /// Model i's own; the input's features, which are every model's, count as the first model's.
    Own(usize),
    /// Weighted sums over groups.
    Groups(Arc<Groups>),
    /// M `[d', N·d]` of a method that mixes features.
    Dense(Arc<Array2<f32>>),
}

/// A merge M that averages the members of every group.
#[derive(Debug, Clone, PartialEq)]
pub struct Groups {
    /// Group of each joint feature, `[N·d]`.
    pub of: Vec<u32>,
    /// Its weight in the group, `[N·d]`.
    pub share: Vec<f32>,
}

impl Blend {
    /// Whether the value is one model's own, and whose.
    #[must_use]
    pub fn own(&self) -> Option<usize> {
        self.whose().filter(|_| self.order.is_none())
    }

    /// The only model whose features it is made of, in whatever order, where no merged feature is among them.
    #[must_use]
    pub fn whose(&self) -> Option<usize> {
        match self.pieces.first()?.made {
            Blended::Own(i) => self.pieces.iter().all(|p| p.made == Blended::Own(i)).then_some(i),
            Blended::Groups(_) | Blended::Dense(_) => None,
        }
    }
}

impl View<'_> {
    /// All of model i's own features of a value, as they stand.
    pub(super) fn own_blend(&self, value: &str, i: usize) -> Blend {
        let n = self.n_numbers(value);
        Blend { pieces: vec![Piece { dim: n, width: n, repeat: 1, made: Blended::Own(i) }], only: None, order: None }
    }

    /// What the copy of `value` that plays `role` stands for; `merges` are the merged spaces' M, by name.
    pub(super) fn blend(&self, value: &str, role: Role, merges: &BTreeMap<&str, Blended>) -> Blend {
        let pieces = self.spaces.axes[value]
            .iter()
            .map(|segment| {
                let made = match (merges.get(self.spaces.spaces[segment.space].name.as_str()), role) {
                    (Some(merge), _) => merge.clone(),
                    (None, Role::Own(i)) => Blended::Own(i),
                    (None, Role::Shared | Role::Part(_)) => Blended::Own(0),
                };
                let [dim, width] = [self.maps.dim(segment.space), self.maps.width(segment.space)];
                Piece { dim, width, repeat: segment.repeat, made }
            })
            .collect();
        let only = match role {
            Role::Part(i) => Some(i),
            Role::Shared | Role::Own(_) => None,
        };
        Blend { pieces, only, order: self.spaces.orders.get(value).cloned().map(Arc::new) }
    }
}
