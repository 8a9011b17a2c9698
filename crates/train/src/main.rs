//! `train`: images of one task in, one network out.

mod base;
mod embedding;
mod job;
mod source;

use clap::Parser;
use std::path::PathBuf;
use zipit::graph::Arch;
use zipit_data::Split;
use zipit_stage::{Common, HasCommon};
use zipit_torch::Device;

/// Train one task's network, from scratch or from another network, so that experiments are reproducible.
///
/// SGD with Nesterov momentum and a one-cycle learning rate. Ctrl-C saves the state beside the output and the same
/// command goes on from it. By default one LibTorch thread computes, so the result does not depend on the machine's
/// number of processors; train several networks side by side instead.
///
/// Example: train --arch resnet20 --data data/fashion-mnist --classes 0-4 --seed 1 -o a.safetensors
#[derive(Debug, Parser)]
#[command(name = "train", version)]
struct Args {
    /// resnet20, resnet32, resnet56 (CIFAR layout), `vgg11_bn`, `vgg16_bn`, resnet18, resnet34, resnet50 (torchvision)
    #[arg(long, required_unless_present = "from")]
    arch: Option<Arch>,
    /// Fine-tune this network: its graph, weights and preprocessing, with a new head for the task's classes
    #[arg(long, value_name = "MODEL", conflicts_with_all = ["arch", "width", "size", "mean", "embeddings"])]
    from: Option<PathBuf>,
    /// Multiplies the usual number of channels
    #[arg(long, default_value_t = 1.0)]
    width: f64,
    /// The data set: class folders of images, IDX, CIFAR's or STL-10's files, or an HDF5 file
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    /// Classes of the task: names, indices or ranges such as 0-4 [default: all]
    #[arg(long, value_delimiter = ',')]
    classes: Vec<String>,
    /// A head that all tasks share: a JSON object with a vector for every class of the data set. The network learns to
    /// point at its classes' vectors, and predicts among all classes
    #[arg(long, value_name = "JSON")]
    embeddings: Option<PathBuf>,
    /// What the task is called [default: the data set's name and the classes as given]
    #[arg(long)]
    task: Option<String>,
    /// train, or another split
    #[arg(long, default_value_t = Split::Train)]
    split: Split,
    /// Height and width of the network's input [default: the images' own]
    #[arg(long, value_name = "PIXELS")]
    size: Option<usize>,
    /// Mean of each channel, in 0…1 [default: measured on the data set, all classes]
    #[arg(long, value_name = "X,…", value_delimiter = ',', requires = "std")]
    mean: Option<Vec<f32>>,
    /// Standard deviation of each channel; networks of several data sets must agree on both to be merged
    #[arg(long, value_name = "X,…", value_delimiter = ',', requires = "mean")]
    std: Option<Vec<f32>>,
    /// Passes over the images
    #[arg(long, default_value_t = 20)]
    epochs: usize,
    /// Images per step
    #[arg(long, default_value_t = 128)]
    batch_size: usize,
    /// Highest learning rate of the cycle
    #[arg(long, allow_negative_numbers = true, default_value_t = 0.2)]
    lr: f64,
    /// Weight decay of convolution and linear weights
    #[arg(long, allow_negative_numbers = true, default_value_t = 5e-4)]
    weight_decay: f64,
    /// Share of the target spread over all classes
    #[arg(long, allow_negative_numbers = true, default_value_t = 0.0)]
    label_smoothing: f64,
    /// Do not mirror images
    #[arg(long)]
    no_flip: bool,
    /// Shift images by up to so many pixels along each axis
    #[arg(long, default_value_t = 2)]
    shift: usize,
    /// Convolutions and linear layers compute in bf16, all else in f32 (PyTorch's autocast): about twice as fast
    /// on CPUs that have AMX, many times slower on those without AVX-512
    #[arg(long)]
    bf16: bool,
    /// Seed of the initialisation, the order of the images and the augmentation
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Where to compute: cpu, cuda or cuda:i
    #[arg(long, default_value = "cpu")]
    device: Device,
    /// The model file to write
    #[arg(long, short, help_heading = zipit_stage::args::OUTPUT)]
    out: PathBuf,
    #[command(flatten)]
    common: Common,
}

impl HasCommon for Args {
    fn common(&self) -> &Common {
        &self.common
    }
}

fn main() {
    zipit_stage::run(job::train)
}
