//! What the network expects of an image, from the command line.

use anyhow::{bail, ensure};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use zipit::graph::Arch;
use zipit::{Crop, Interpolation, Preprocess};

/// The mean and standard deviation with which torchvision's ImageNet networks were trained.
const IMAGENET: ([f32; 3], [f32; 3]) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);

/// How images become the network's input.
#[derive(Debug, Clone, Args)]
pub struct PreprocessArgs {
    /// Image size the network was trained on: 32 or 28x32 (height x width) [default: torchvision networks 224]
    #[arg(long, value_parser = parse_size, requires = "arch")]
    size: Option<[usize; 2]>,
    /// Size before the crop: 256 (the shorter side), or 256x320 (height x width) [default: torchvision networks at 224: 256,
    /// else --size]
    #[arg(long, value_parser = parse_size, requires = "arch")]
    resize: Option<[usize; 2]>,
    /// The same as a fraction, in timm's way: --resize is each side of --size divided by this, rounded down
    #[arg(long, value_name = "F", value_parser = parse_fraction, requires = "arch", conflicts_with = "resize")]
    crop_pct: Option<f64>,
    /// What becomes of an image of another shape: covers --resize and is cut to --size (center), loses its shape (squash),
    /// fits into --resize and is filled up around (border) [default: center]
    #[arg(long, requires = "arch", value_parser = one_of(&Crop::ALL.map(|crop| (crop, crop.name()))))]
    crop: Option<Crop>,
    /// The filter of resizing, in Pillow's words [default: bilinear]
    #[arg(long, value_name = "NAME", requires = "arch",
          value_parser = one_of(&Interpolation::ALL.map(|filter| (filter, filter.name()))))]
    interpolation: Option<Interpolation>,
    /// The colour around the image with --crop border, a byte or one per channel [default: the mean]
    #[arg(long, value_name = "B,…", value_delimiter = ',', requires = "arch")]
    fill: Vec<u8>,
    /// Mean per channel of values in 0…1 [default: torchvision networks ImageNet's]
    #[arg(long, value_delimiter = ',', requires_all = ["std", "arch"])]
    mean: Vec<f32>,
    /// Standard deviation per channel
    #[arg(long, value_delimiter = ',', requires_all = ["mean", "arch"])]
    std: Vec<f32>,
}

/// One of these values, by its name.
fn one_of<T: Copy + Send + Sync + 'static>(values: &[(T, &'static str)]) -> impl TypedValueParser<Value = T> + use<T> {
    let values = values.to_vec();
    PossibleValuesParser::new(values.iter().map(|(_, name)| *name))
        .map(move |said| values.iter().find(|(_, name)| *name == said).expect("one of the possible values").0)
}

fn parse_fraction(text: &str) -> Result<f64, String> {
    let fraction = text.parse().ok().filter(|&f: &f64| f > 0.0 && f <= 16.0);
    fraction.ok_or_else(|| format!("`{text}` is not a fraction such as 0.875"))
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
        let resize = match self.crop_pct {
            Some(fraction) => Some(size.map(|side| (side as f64 / fraction).floor() as usize)),
            None => self.resize.or((torchvision && self.size.is_none()).then_some([256; 2])),
        };
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
        Ok(Preprocess {
            size,
            resize,
            interpolation: self.interpolation.unwrap_or_default(),
            crop: self.crop.unwrap_or_default(),
            fill: (!self.fill.is_empty()).then(|| self.fill.clone()),
            mean,
            std,
        })
    }
}

/// Fits the numbers given to the channels that the tensors show.
pub trait ForChannels: Sized {
    /// One number is used for every channel; otherwise there must be one each.
    fn for_channels(self, n_channels: usize) -> anyhow::Result<Self>;
}

impl ForChannels for Preprocess {
    fn for_channels(mut self, n_channels: usize) -> anyhow::Result<Self> {
        if let Some([only]) = self.fill.as_deref() {
            self.fill = Some(vec![*only; n_channels]);
        }
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
        self.validate()?;
        Ok(self)
    }
}
