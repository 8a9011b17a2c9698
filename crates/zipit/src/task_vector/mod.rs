//! Fine-tunes of one base, merged by what fine-tuning changed: with the task vectors τₜ = θₜ − θ₀ (task arithmetic, Ilharco et
//! al. 2023, arXiv 2212.04089), θ = θ₀ + λ · (what a rule makes of τ₁, τ₂, …), tensor by tensor. Features stand at the same
//! places in all of them, so that nothing is matched.
//!
//! Every rule is a module of its own, with its equation and source. Tensors are read piece by piece from a [`Source`] and
//! never kept, so that memory grows with the largest tensor at most (where a rule takes matrices apart, or makes masks), and not
//! with the number of networks. Results do not depend on the number of threads.

mod average;
mod breadcrumbs;
mod combine;
mod cut;
mod dare;
mod elect;
pub mod emr;
mod factors;
mod fine_tunes;
mod fisher;
mod gram;
mod iso;
mod join;
mod kin;
mod mats;
mod model_stock;
mod regmean;
mod rule;
mod selection;
mod slerp;
mod source;
mod ties;
mod tsv;

pub use combine::{Made, Part, combine, combined};
pub use dare::Rescale;
pub use elect::Disjoint;
pub use fine_tunes::{difference, rooted, task_vectors};
pub use join::{Joined, Outline, join, told_apart};
pub use kin::{Kin, kin};
pub use mats::{Solved, Stop};
pub use rule::{Kernels, Recipe, Rule};
pub use source::{InMemory, Network, Source, Tensor};
pub use ties::{Scope, trim_and_elect};
