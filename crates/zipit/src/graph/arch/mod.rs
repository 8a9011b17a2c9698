//! Architectures as builders of graphs. Nothing else in this crate knows an architecture.
//!
//! Tensors carry PyTorch state-dict names, so that a checkpoint from PyTorch fits; values carry the names
//! torchvision's feature extraction gives them (`layer1.0.relu_1`), so that a merge point can be named at sight.

mod cifar_resnet;
mod infer;
mod resnet;
#[cfg(test)]
mod tests;
mod vgg;

use super::{Graph, Input, Node, Op, Window};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// PyTorch's default.
const BN_EPS: f64 = 1e-5;
/// Far beyond any network, and small enough that no size computed from it overflows.
const MAX_WIDTH: f64 = 1024.0;

/// A family member one can ask for by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Arch {
    /// ResNet-20 for small images (He et al. 2016, §4.2), in the layout of the ZipIt authors.
    ResNet20,
    /// ResNet-32 for small images.
    ResNet32,
    /// ResNet-56 for small images.
    ResNet56,
    /// VGG-11 with batch normalisation.
    Vgg11Bn,
    /// VGG-16 with batch normalisation.
    Vgg16Bn,
    /// torchvision's ResNet-18.
    ResNet18,
    /// torchvision's ResNet-34.
    ResNet34,
    /// torchvision's ResNet-50 (v1.5: the stride is on the 3×3 convolution).
    ResNet50,
}

impl Arch {
    /// Every one, in the order of the documentation.
    pub const ALL: [Self; 8] = [
        Self::ResNet20,
        Self::ResNet32,
        Self::ResNet56,
        Self::Vgg11Bn,
        Self::Vgg16Bn,
        Self::ResNet18,
        Self::ResNet34,
        Self::ResNet50,
    ];

    /// Its name on the command line and in [`Graph::arch`].
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ResNet20 => "resnet20",
            Self::ResNet32 => "resnet32",
            Self::ResNet56 => "resnet56",
            Self::Vgg11Bn => "vgg11_bn",
            Self::Vgg16Bn => "vgg16_bn",
            Self::ResNet18 => "resnet18",
            Self::ResNet34 => "resnet34",
            Self::ResNet50 => "resnet50",
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<Arch> for String {
    fn from(arch: Arch) -> Self {
        arch.name().to_owned()
    }
}

impl TryFrom<String> for Arch {
    type Error = Error;
    fn try_from(name: String) -> Result<Self> {
        name.parse()
    }
}

/// ```
/// use zipit::graph::Arch;
/// assert_eq!("vgg11".parse::<Arch>().unwrap(), Arch::Vgg11Bn);
/// assert!("alexnet".parse::<Arch>().unwrap_err().to_string().contains("resnet20, resnet32"));
/// ```
impl FromStr for Arch {
    type Err = Error;
    fn from_str(name: &str) -> Result<Self> {
        let full = match name {
            "vgg11" => "vgg11_bn",
            "vgg16" => "vgg16_bn",
            other => other,
        };
        Self::ALL.into_iter().find(|arch| arch.name() == full).ok_or_else(|| {
            Error::Request(format!(
                "`{name}` is not an architecture this tool builds; it builds {}",
                Self::ALL.map(Self::name).join(", ")
            ))
        })
    }
}

/// What follows the last feature map of a VGG.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum VggHead {
    /// torchvision's: average pooling to 7×7, then `classifier.0`, `classifier.3` and `classifier.6`, with ReLU
    /// between them; its dropout does nothing outside training and is left out.
    Mlp {
        /// Width of the two hidden layers; 4096 × width in torchvision.
        hidden: usize,
    },
    /// One Linear layer called `classifier`, as usual for small images.
    Linear {
        /// Average-pool to this height and width before flattening; `None`: flatten what there is.
        pool: Option<[usize; 2]>,
    },
}

/// Everything that determines a network's graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchSpec {
    /// The family member.
    pub arch: Arch,
    /// Multiplies every hidden number of channels; the result is rounded, and at least 1.
    pub width: f64,
    /// Colour channels.
    pub in_channels: usize,
    /// Height and width of the image.
    pub image_size: [usize; 2],
    /// Number of logits.
    pub n_classes: usize,
    /// Kernel of the projection shortcuts, 1 or 3. Only ResNet-20, 32 and 56 read it.
    pub projection_kernel: usize,
    /// Only the VGGs read it.
    pub vgg_head: VggHead,
}

impl ArchSpec {
    /// A network with the defaults for new ones: 1×1 projections; a VGG gets torchvision's head on images of
    /// 224×224 and more, and a single Linear layer on smaller ones.
    #[must_use]
    pub fn new(arch: Arch, width: f64, in_channels: usize, image_size: [usize; 2], n_classes: usize) -> Self {
        let vgg_head = if image_size.iter().all(|&side| side >= 224) {
            VggHead::Mlp { hidden: scaled(vgg::HIDDEN, width) }
        } else {
            VggHead::Linear { pool: None }
        };
        Self { arch, width, in_channels, image_size, n_classes, projection_kernel: 1, vgg_head }
    }

    /// The network's graph, checked.
    ///
    /// ```
    /// use zipit::graph::{Arch, ArchSpec};
    /// let graph = ArchSpec::new(Arch::ResNet20, 1.0, 3, [32, 32], 10).build().unwrap();
    /// assert_eq!(graph.n_layers(), 20);
    /// assert_eq!(graph.merge_points(&graph.spaces().unwrap()).len(), 12);
    /// ```
    ///
    /// # Errors
    /// A size that makes no network: zero, not finite, or an image too small for the pooling.
    pub fn build(&self) -> Result<Graph> {
        let request = |what: String| Err(Error::Request(format!("{}: {what}", self.arch)));
        if !(self.width.is_finite() && 0.0 < self.width && self.width <= MAX_WIDTH) {
            return request(format!("width {} must be above 0 and at most {MAX_WIDTH}", self.width));
        }
        if self.in_channels == 0 || self.n_classes == 0 || self.image_size.contains(&0) {
            return request(format!(
                "{} classes from {} channels of {}×{} pixels: each must be at least 1",
                self.n_classes, self.in_channels, self.image_size[0], self.image_size[1]
            ));
        }
        if ![1, 3].contains(&self.projection_kernel) {
            return request(format!("a projection kernel of {} is not known; it is 1 or 3", self.projection_kernel));
        }
        let mut net = Builder::default();
        match self.arch {
            Arch::ResNet20 => cifar_resnet::build(self, 3, &mut net),
            Arch::ResNet32 => cifar_resnet::build(self, 5, &mut net),
            Arch::ResNet56 => cifar_resnet::build(self, 9, &mut net),
            Arch::Vgg11Bn => vgg::build(self, &vgg::VGG11, &mut net),
            Arch::Vgg16Bn => vgg::build(self, &vgg::VGG16, &mut net),
            Arch::ResNet18 => resnet::build(self, resnet::Block::Basic, [2, 2, 2, 2], &mut net),
            Arch::ResNet34 => resnet::build(self, resnet::Block::Basic, [3, 4, 6, 3], &mut net),
            Arch::ResNet50 => resnet::build(self, resnet::Block::Bottleneck, [3, 4, 6, 3], &mut net),
        }
        let outputs = net.nodes.last().map(|node| node.name.clone()).into_iter().collect();
        let graph = Graph {
            arch: self.arch.name().to_owned(),
            input: Input {
                name: INPUT.to_owned(),
                shape: vec![self.in_channels, self.image_size[0], self.image_size[1]],
            },
            nodes: net.nodes,
            outputs,
        };
        graph.shapes()?;
        Ok(graph)
    }

    /// `base` channels times the width.
    fn channels(&self, base: usize) -> usize {
        scaled(base, self.width)
    }
}

/// Name of the image's value, torchvision's.
const INPUT: &str = "x";

fn scaled(base: usize, width: f64) -> usize {
    ((base as f64 * width).round() as usize).max(1)
}

/// Collects nodes; every method returns the name of the value it makes.
#[derive(Default)]
struct Builder {
    nodes: Vec<Node>,
}

impl Builder {
    fn push(&mut self, name: &str, op: Op, inputs: &[&str]) -> String {
        let module = (!op.params().is_empty()).then(|| name.to_owned());
        let inputs = inputs.iter().map(|&input| input.to_owned()).collect();
        self.nodes.push(Node { module, ..Node::new(name, op, inputs) });
        name.to_owned()
    }

    fn conv(&mut self, name: &str, input: &str, [i, o]: [usize; 2], window: Window, bias: bool) -> String {
        self.push(name, Op::Conv2d { in_channels: i, out_channels: o, window, groups: 1, bias }, &[input])
    }

    fn batch_norm(&mut self, name: &str, input: &str, num_features: usize) -> String {
        self.push(name, Op::BatchNorm2d { num_features, eps: BN_EPS }, &[input])
    }

    /// Convolution without bias and batch normalisation.
    fn conv_bn(&mut self, conv: &str, bn: &str, input: &str, channels: [usize; 2], window: Window) -> String {
        let convolved = self.conv(conv, input, channels, window, false);
        self.batch_norm(bn, &convolved, channels[1])
    }

    fn relu(&mut self, name: &str, input: &str) -> String {
        self.push(name, Op::Relu, &[input])
    }

    fn linear(&mut self, name: &str, input: &str, [i, o]: [usize; 2]) -> String {
        self.push(name, Op::Linear { in_features: i, out_features: o, bias: true }, &[input])
    }

    /// Global average, flatten, and the layer of logits.
    fn global_head(&mut self, linear: &str, input: &str, channels: [usize; 2]) {
        let pooled = self.push("avgpool", Op::AdaptiveAvgPool2d { output: [1, 1] }, &[input]);
        let flat = self.push("flatten", Op::Flatten, &[&pooled]);
        self.linear(linear, &flat, channels);
    }
}
