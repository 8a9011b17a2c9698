//! What a checkpoint's tensor shapes say about the network they come from.

use super::{Arch, ArchSpec, MAX_WIDTH, VggHead, cifar_resnet, resnet, scaled, vgg};
use crate::{Error, Result};
use std::collections::BTreeMap;

/// Tensor shapes by state-dict name.
type Shapes<'a> = BTreeMap<&'a str, Vec<usize>>;

impl ArchSpec {
    /// Reads width, input channels, classes, projection kernel and VGG head from the shapes of a checkpoint's tensors.
    ///
    /// Forgiving: what the shapes do not tell keeps its default, because
    /// [`check_tensor_shapes`](crate::Graph::check_tensor_shapes) on the built graph then lists every mismatch.
    ///
    /// # Errors
    /// When not one tensor bears a name that this architecture uses.
    pub fn infer(arch: Arch, image_size: [usize; 2], shapes: &BTreeMap<&str, Vec<usize>>) -> Result<Self> {
        let (first, last) = match arch {
            Arch::ResNet20 | Arch::ResNet32 | Arch::ResNet56 => ("conv1.weight", &["linear.weight"][..]),
            Arch::Vgg11Bn | Arch::Vgg16Bn => ("features.0.weight", &["classifier.6.weight", "classifier.weight"][..]),
            Arch::ResNet18 | Arch::ResNet34 | Arch::ResNet50 => ("conv1.weight", &["fc.weight"][..]),
        };
        let dim = |name: &str, axis: usize| shapes.get(name).and_then(|s| s.get(axis)).copied().filter(|&n| n > 0);
        let width = width_from(&hidden_channels(arch, shapes)).unwrap_or(1.0);
        let in_channels = dim(first, 1).unwrap_or(3);
        let n_classes = last.iter().find_map(|name| dim(name, 0)).unwrap_or(10);
        let mut spec = Self::new(arch, width, in_channels, image_size, n_classes);
        if dim("layer2.0.shortcut.0.weight", 2) == Some(3) {
            spec.projection_kernel = 3;
        }
        if let Some(hidden) = dim("classifier.0.weight", 0) {
            spec.vgg_head = VggHead::Mlp { hidden };
        } else if let Some(flat) = dim("classifier.weight", 1) {
            spec.vgg_head = VggHead::Linear { pool: pool_for(flat / scaled(512, width), image_size) };
        }
        let names = spec.build()?.params();
        if !shapes.keys().any(|name| names.contains_key(*name)) {
            let listed = |names: &mut dyn Iterator<Item = &str>| names.take(3).collect::<Vec<_>>().join(", ");
            return Err(Error::Request(format!(
                "none of the {} tensors ({}, …) bears a name of {arch} ({}, …): it is another architecture, or the \
                 names have a prefix",
                shapes.len(),
                listed(&mut shapes.keys().copied()),
                listed(&mut names.keys().map(String::as_str)),
            )));
        }
        Ok(spec)
    }
}

/// Pairs of (channels at width 1, channels found), one per stage where the tensor is there.
fn hidden_channels(arch: Arch, shapes: &Shapes<'_>) -> Vec<(usize, usize)> {
    let stages = |bases: &[usize]| -> Vec<(String, usize)> {
        bases.iter().enumerate().map(|(i, &base)| (format!("layer{}.0.conv1.weight", i + 1), base)).collect()
    };
    let layers: Vec<(String, usize)> = match arch {
        Arch::ResNet20 | Arch::ResNet32 | Arch::ResNet56 => stages(&cifar_resnet::STAGES),
        Arch::ResNet18 | Arch::ResNet34 | Arch::ResNet50 => stages(&resnet::STAGES),
        Arch::Vgg11Bn | Arch::Vgg16Bn => {
            let all = if arch == Arch::Vgg11Bn { &vgg::VGG11 } else { &vgg::VGG16 };
            let mut n = 0;
            let mut layers = Vec::new();
            for stage in all {
                for &base in *stage {
                    layers.push((format!("features.{n}.weight"), base));
                    n += 3;
                }
                n += 1;
            }
            layers
        }
    };
    layers
        .into_iter()
        .filter_map(|(name, base)| Some((base, *shapes.get(name.as_str())?.first()?)))
        .filter(|&(_, found)| found > 0)
        .collect()
}

/// A usable width that rounds to every number of channels found; the first pair's ratio where there is none.
fn width_from(pairs: &[(usize, usize)]) -> Option<f64> {
    let ratio = |&(base, found): &(usize, usize)| found as f64 / base as f64;
    let usable = |width: &f64| *width > 0.0 && *width <= MAX_WIDTH;
    let fits = |width: &f64| usable(width) && pairs.iter().all(|&(base, found)| scaled(base, *width) == found);
    let low = pairs.iter().map(|&(base, found)| (found as f64 - 0.5) / base as f64).fold(0.0, f64::max);
    let high = pairs.iter().map(|&(base, found)| (found as f64 + 0.5) / base as f64).fold(MAX_WIDTH, f64::min);
    pairs
        .iter()
        .map(ratio)
        .chain((low < high).then(|| f64::midpoint(low, high)))
        .find(fits)
        .or_else(|| pairs.first().map(ratio))
        .filter(usable)
}

/// The pooling that leaves `positions`, if any is needed.
fn pool_for(positions: usize, image_size: [usize; 2]) -> Option<[usize; 2]> {
    if vgg::natural_positions(image_size).iter().product::<usize>() == positions {
        return None;
    }
    let side = positions.isqrt();
    (side > 0 && side * side == positions).then_some([side; 2])
}
