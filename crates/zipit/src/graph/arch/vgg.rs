//! VGG with batch normalisation, torchvision's numbering: `features.N` counts convolution, batch normalisation, ReLU
//! and max pooling one by one.

use super::{ArchSpec, Builder, INPUT, VggHead};
use crate::graph::{Op, Window};

/// Channels of the convolutions between poolings, at width 1.
pub type Stages = [&'static [usize]; 5];

/// VGG-11, configuration A of Simonyan & Zisserman 2015.
pub const VGG11: Stages = [&[64], &[128], &[256, 256], &[512, 512], &[512, 512]];
/// VGG-16, configuration D.
pub const VGG16: Stages = [&[64, 64], &[128, 128], &[256, 256, 256], &[512, 512, 512], &[512, 512, 512]];
/// Width of torchvision's hidden Linear layers at width 1.
pub const HIDDEN: usize = 4096;
/// What torchvision's head pools to.
pub const MLP_POOL: [usize; 2] = [7, 7];

pub fn build(spec: &ArchSpec, stages: &Stages, net: &mut Builder) {
    let mut value = INPUT.to_owned();
    let mut from = spec.in_channels;
    let mut n = 0;
    let mut next = || {
        n += 1;
        format!("features.{}", n - 1)
    };
    for stage in stages {
        for &base in *stage {
            let to = spec.channels(base);
            value = net.conv(&next(), &value, [from, to], Window::square(3, 1, 1), true);
            value = net.batch_norm(&next(), &value, to);
            value = net.relu(&next(), &value);
            from = to;
        }
        value = net.push(&next(), Op::MaxPool2d { window: Window::square(2, 2, 0) }, &[&value]);
    }
    match spec.vgg_head {
        VggHead::Mlp { hidden } => {
            let pooled = net.push("avgpool", Op::AdaptiveAvgPool2d { output: MLP_POOL }, &[&value]);
            let flat = net.push("flatten", Op::Flatten, &[&pooled]);
            let x = net.linear("classifier.0", &flat, [from * MLP_POOL[0] * MLP_POOL[1], hidden]);
            let x = net.relu("classifier.1", &x);
            let x = net.linear("classifier.3", &x, [hidden, hidden]);
            let x = net.relu("classifier.4", &x);
            net.linear("classifier.6", &x, [hidden, spec.n_classes]);
        }
        VggHead::Linear { pool } => {
            let positions = pool.unwrap_or_else(|| natural_positions(spec.image_size));
            if let Some(output) = pool {
                value = net.push("avgpool", Op::AdaptiveAvgPool2d { output }, &[&value]);
            }
            let flat = net.push("flatten", Op::Flatten, &[&value]);
            net.linear("classifier", &flat, [from * positions[0] * positions[1], spec.n_classes]);
        }
    }
}

/// Height and width of the last feature map: five halvings.
pub fn natural_positions(image_size: [usize; 2]) -> [usize; 2] {
    image_size.map(|side| side >> 5)
}
