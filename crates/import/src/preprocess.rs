//! What the network expects of an image, from the command line.

use anyhow::{bail, ensure};
use clap::Args;
use zipit::Preprocess;
use zipit::graph::Arch;

/// The mean and standard deviation with which torchvision's ImageNet networks were trained.
const IMAGENET: ([f32; 3], [f32; 3]) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);

/// How images become the network's input.
#[derive(Debug, Clone, Args)]
pub struct PreprocessArgs {
    /// Image size the network was trained on: 32 or 28x32 (height x width) [default: torchvision networks 224]
    #[arg(long, value_parser = parse_size, requires = "arch")]
    size: Option<[usize; 2]>,
    /// Length of the shorter side before the centre crop [default: torchvision networks at 224: 256, else no crop]
    #[arg(long, requires = "arch")]
    resize: Option<usize>,
    /// Mean per channel of values in 0…1 [default: torchvision networks ImageNet's]
    #[arg(long, value_delimiter = ',', requires_all = ["std", "arch"])]
    mean: Vec<f32>,
    /// Standard deviation per channel
    #[arg(long, value_delimiter = ',', requires_all = ["mean", "arch"])]
    std: Vec<f32>,
}

fn parse_size(text: &str) -> Result<[usize; 2], String> {
    let number = |t: &str| t.parse().ok().filter(|&n: &usize| (1..=16_384).contains(&n));
    let size = match text.split_once('x') {
        Some((h, w)) => number(h).zip(number(w)).map(|(h, w)| [h, w]),
        None => number(text).map(|n| [n, n]),
    };
    size.ok_or_else(|| format!("`{text}` is not a size such as 32 or 28x32"))
}

/// Whether torchvision ships trained networks of this architecture.
fn is_torchvision(arch: Arch) -> bool {
    match arch {
        Arch::ResNet20 | Arch::ResNet32 | Arch::ResNet56 => false,
        Arch::Vgg11Bn | Arch::Vgg16Bn | Arch::ResNet18 | Arch::ResNet34 | Arch::ResNet50 => true,
    }
}

impl PreprocessArgs {
    /// The preprocessing, with the defaults that belong to `arch`.
    pub fn resolve(&self, arch: Arch) -> anyhow::Result<Preprocess> {
        let torchvision = is_torchvision(arch);
        let Some(size) = self.size.or(torchvision.then_some([224, 224])) else {
            bail!("{arch} networks have no usual image size: say with --size what this one was trained on");
        };
        let resize = self.resize.or((torchvision && self.size.is_none()).then_some(256));
        let (mean, std) = if self.mean.is_empty() {
            ensure!(
                torchvision,
                "{arch} networks have no usual normalisation: say with --mean and --std what this one was trained with \
                 (0 and 1 if images went in as 0…1)"
            );
            tracing::info!("preprocessing: ImageNet's mean and standard deviation, as torchvision's networks expect");
            (IMAGENET.0.to_vec(), IMAGENET.1.to_vec())
        } else {
            (self.mean.clone(), self.std.clone())
        };
        Ok(Preprocess { size, resize, mean, std })
    }
}

/// Fits the numbers given to the channels that the tensors show.
pub trait ForChannels: Sized {
    /// One number is used for every channel; otherwise there must be one each.
    fn for_channels(self, n_channels: usize) -> anyhow::Result<Self>;
}

impl ForChannels for Preprocess {
    fn for_channels(mut self, n_channels: usize) -> anyhow::Result<Self> {
        for values in [&mut self.mean, &mut self.std] {
            if let [only] = values[..] {
                *values = vec![only; n_channels];
            }
            ensure!(
                values.len() == n_channels,
                "images of {n_channels} channel(s) go into the network but --mean/--std give {} numbers",
                values.len()
            );
        }
        Ok(self)
    }
}
