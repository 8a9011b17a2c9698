//! Every path inside an HDF5 file, once.

/// Stats: JSON as bytes, `[n]` u8.
pub const HEADER: &str = "header";
/// Stats: the group that holds one group per merge point.
pub const POINTS: &str = "points";
/// Stats: the group that holds one group per layer whose inputs were measured.
pub const LAYERS: &str = "layers";
/// Stats: the group that holds one group per value that something reads.
pub const VALUES: &str = "values";
/// Stats: the group that holds one group per layer at which gradients were measured.
pub const GRADIENTS: &str = "gradients";
/// Stats: the group that holds one group per model of its Fisher information.
pub const FISHER: &str = "fisher";
/// Stats, per value: the smallest number of each feature, `[N·C]` f32.
pub const LOW: &str = "low";
/// Stats, per value: the largest number of each feature, `[N·C]` f32.
pub const HIGH: &str = "high";
/// Stats, per point: n, a scalar u64.
pub const COUNT: &str = "count";
/// Stats, per point: Σz, `[N·d]` f64.
pub const SUM: &str = "sum";
/// Stats, per point: the packed upper triangle of Σzzᵀ, `[N·d·(N·d+1)/2]` f64.
pub const OUTER: &str = "outer";

/// Data set: the class names, `[K]` strings.
pub const CLASSES: &str = "classes";
/// Data set: the groups that may hold images; at least one is there.
pub const SPLITS: [&str; 3] = ["train", "val", "test"];
/// Data set, per split: `[N, C, H, W]` u8.
pub const IMAGES: &str = "images";
/// Data set, per split: `[N]` integers, indices into the class names.
pub const LABELS: &str = "labels";

/// Path of a merge point's group.
#[must_use]
pub fn point(name: &str) -> String {
    format!("{POINTS}/{}", link(name))
}

/// Path of a layer's group.
#[must_use]
pub fn layer(name: &str) -> String {
    format!("{LAYERS}/{}", link(name))
}

/// Path of a value's group.
#[must_use]
pub fn value(name: &str) -> String {
    format!("{VALUES}/{}", link(name))
}

/// Path of model i's group within a layer's, where each model is measured by itself.
#[must_use]
pub fn own(name: &str, i: usize) -> String {
    format!("{}/{i}", layer(name))
}

/// Path of a layer's gradients.
#[must_use]
pub fn layer_gradients(name: &str) -> String {
    format!("{GRADIENTS}/{}", link(name))
}

/// Path of model i's gradients at a layer.
#[must_use]
pub fn own_gradients(name: &str, i: usize) -> String {
    format!("{}/{i}", layer_gradients(name))
}

/// Path of model i's Fisher information.
#[must_use]
pub fn fisher(i: usize) -> String {
    format!("{FISHER}/{i}")
}

/// Path of model i's Fisher information of one tensor: a data set.
#[must_use]
pub fn fisher_of(i: usize, tensor: &str) -> String {
    format!("{}/{}", fisher(i), link(tensor))
}

/// Path of the group that holds one group per place where a merge point's importance was measured.
#[must_use]
pub fn importance(name: &str) -> String {
    format!("{}/importance", point(name))
}

/// Path of a merge point's k-th place.
#[must_use]
pub fn place(name: &str, k: usize) -> String {
    format!("{}/{k}", importance(name))
}

/// Path of the joint features' group at a merge point's k-th place.
#[must_use]
pub fn joint(name: &str, k: usize) -> String {
    format!("{}/joint", place(name, k))
}

/// Path of model i's gradients at a merge point's k-th place.
#[must_use]
pub fn gradients(name: &str, k: usize, i: usize) -> String {
    format!("{}/{i}", place(name, k))
}

/// HDF5 gives `/`, `.` and `..` a meaning of their own, so these are percent-encoded.
fn link(name: &str) -> String {
    let mut link = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '/' => link.push_str("%2F"),
            '%' => link.push_str("%25"),
            '\0' => link.push_str("%00"),
            '.' if name.chars().all(|c| c == '.') => link.push_str("%2E"),
            c => link.push(c),
        }
    }
    link
}
