//! torchvision's residual networks: `conv1` 7×7, max pooling, four stages, `downsample.{0,1}`, `fc`.

use super::{ArchSpec, Builder, INPUT};
use crate::graph::{Op, Window};

/// Channels inside the blocks of each stage at width 1.
pub const STAGES: [usize; 4] = [64, 128, 256, 512];

/// The two kinds of residual block.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Block {
    /// Two 3×3 convolutions.
    Basic,
    /// 1×1, 3×3 with the stride (v1.5), 1×1 to four times the channels.
    Bottleneck,
}

impl Block {
    /// Channels of the residual stream per channel inside the block.
    pub fn expansion(self) -> usize {
        match self {
            Self::Basic => 1,
            Self::Bottleneck => 4,
        }
    }
}

pub fn build(spec: &ArchSpec, block: Block, n_blocks: [usize; 4], net: &mut Builder) {
    let mut from = spec.channels(STAGES[0]);
    let stem = net.conv_bn("conv1", "bn1", INPUT, [spec.in_channels, from], Window::square(7, 2, 3));
    let stem = net.relu("relu", &stem);
    let mut stream = net.push("maxpool", Op::MaxPool2d { window: Window::square(3, 2, 1) }, &[&stem]);
    for (stage, (base, n)) in STAGES.into_iter().zip(n_blocks).enumerate() {
        let inside = spec.channels(base);
        let to = inside * block.expansion();
        for b in 0..n {
            let stride = if stage > 0 && b == 0 { 2 } else { 1 };
            let prefix = format!("layer{}.{b}", stage + 1);
            let branch = match block {
                Block::Basic => basic(net, &prefix, &stream, [from, inside], stride),
                Block::Bottleneck => bottleneck(net, &prefix, &stream, [from, inside, to], stride),
            };
            let skip = if stride != 1 || from != to {
                let name = |i: usize| format!("{prefix}.downsample.{i}");
                net.conv_bn(&name(0), &name(1), &stream, [from, to], Window::square(1, stride, 0))
            } else {
                stream
            };
            let sum = net.push(&format!("{prefix}.add"), Op::Add, &[&branch, &skip]);
            let last_relu = match block {
                Block::Basic => "relu_1",
                Block::Bottleneck => "relu_2",
            };
            stream = net.relu(&format!("{prefix}.{last_relu}"), &sum);
            from = to;
        }
    }
    net.global_head("fc", &stream, [from, spec.n_classes]);
}

fn basic(net: &mut Builder, prefix: &str, x: &str, [from, to]: [usize; 2], stride: usize) -> String {
    let name = |part: &str| format!("{prefix}.{part}");
    let x = net.conv_bn(&name("conv1"), &name("bn1"), x, [from, to], Window::square(3, stride, 1));
    let x = net.relu(&name("relu"), &x);
    net.conv_bn(&name("conv2"), &name("bn2"), &x, [to, to], Window::square(3, 1, 1))
}

fn bottleneck(net: &mut Builder, prefix: &str, x: &str, [from, inside, to]: [usize; 3], stride: usize) -> String {
    let name = |part: &str| format!("{prefix}.{part}");
    let x = net.conv_bn(&name("conv1"), &name("bn1"), x, [from, inside], Window::square(1, 1, 0));
    let x = net.relu(&name("relu"), &x);
    let x = net.conv_bn(&name("conv2"), &name("bn2"), &x, [inside, inside], Window::square(3, stride, 1));
    let x = net.relu(&name("relu_1"), &x);
    net.conv_bn(&name("conv3"), &name("bn3"), &x, [inside, to], Window::square(1, 1, 0))
}
