//! Residual networks for small images (He et al. 2016, §4.2): three stages of 16, 32 and 64 channels, in the layout the ZipIt
//! authors train: `conv1`, `bn1`, `layer{1,2,3}.{b}.conv{1,2}`, `.bn{1,2}`, `.shortcut.{0,1}`, `linear`.

use super::{ArchSpec, Builder, INPUT};
use crate::graph::{Op, Window};

/// Channels of each stage at width 1.
pub const STAGES: [usize; 3] = [16, 32, 64];

pub fn build(spec: &ArchSpec, n_blocks: usize, net: &mut Builder) {
    let mut channels = spec.channels(STAGES[0]);
    let stem = net.conv_bn("conv1", "bn1", INPUT, [spec.in_channels, channels], Window::square(3, 1, 1));
    let mut stream = net.relu("relu", &stem);
    for (stage, base) in STAGES.into_iter().enumerate() {
        for block in 0..n_blocks {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let name = |part: &str| format!("layer{}.{block}.{part}", stage + 1);
            let [from, to] = [channels, spec.channels(base)];
            let inner = net.conv_bn(&name("conv1"), &name("bn1"), &stream, [from, to], Window::square(3, stride, 1));
            let inner = net.relu(&name("relu"), &inner);
            let inner = net.conv_bn(&name("conv2"), &name("bn2"), &inner, [to, to], Window::square(3, 1, 1));
            let skip = if stride != 1 || from != to {
                let kernel = spec.projection_kernel;
                let window = Window::square(kernel, stride, kernel / 2);
                net.conv_bn(&name("shortcut.0"), &name("shortcut.1"), &stream, [from, to], window)
            } else {
                stream
            };
            let sum = net.push(&name("add"), Op::Add, &[&inner, &skip]);
            stream = net.relu(&name("relu_1"), &sum);
            channels = to;
        }
    }
    net.global_head("linear", &stream, [channels, spec.n_classes]);
}
