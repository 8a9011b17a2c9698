//! The algorithm of *ZipIt!* (Stoica et al., ICLR 2024, arXiv 2305.03053) and what grew from it.
//!
//! Values in, values out: no file, no C library, no network framework. The flow through this crate is
//!
//! ```text
//! Graph ──► Spaces ──► merge points ──► Moments of z = [x¹; …; xᴺ] ──► Matching ──► Merge M, Unmerge U ──► apply ──► Model
//! ```
//!
//! - [`graph`]: a network as data, its feature [`spaces`](graph::Spaces), its checks and its cost;
//! - [`moments`]: what is measured at a merge point, in f64, so that shards add;
//! - [`constants`]: which features never vary, and need no place in the merged network;
//! - [`fisher`]: which parameters matter to the predictions, and how much;
//! - [`importance`]: which features matter to the logits, and how much;
//! - [`matching`]: which features become one;
//! - [`unmerge`]: how every model's features come back from the merged ones;
//! - [`apply`](mod@apply): graph surgery and `W* = Σᵢ Mᵢ Wᵢ Uᵢ`;
//! - [`fold`]: BatchNorm folded into convolutions;
//! - [`refit`]: every layer of the merged network solved again;
//! - [`task_vector`]: what fine-tuning changed, and fine-tunes of one base merged by it;
//! - [`memory`]: what running all that takes;
//! - [`joint`]: one prediction over the classes of all heads;
//! - [`prospects`]: what a merge will be, before anything is run.

pub mod apply;
pub mod budget;
mod cholesky;
pub mod collected;
pub mod constants;
pub mod error;
pub mod extent;
pub mod fisher;
pub mod fold;
pub mod graph;
pub mod history;
pub mod images;
pub mod importance;
pub mod joint;
pub mod kinship;
pub mod matching;
pub mod memory;
pub mod merge_set;
pub mod model;
pub mod moments;
pub mod plan;
pub mod preprocess;
mod products;
pub mod prospects;
pub mod refit;
pub mod report;
pub mod scratch;
pub mod state_dict;
pub mod symmetric;
pub mod task_vector;
pub mod unmerge;
pub mod watch;

pub use collected::Collected;
pub use constants::{Constants, Observed};
pub use error::{Error, Result};
pub use extent::Extent;
pub use fisher::Fisher;
pub use graph::Graph;
pub use importance::Importance;
pub use model::{Model, Task};
pub use moments::{Moments, Moved};
pub use preprocess::{Crop, Interpolation, Preprocess};
pub use state_dict::StateDict;
