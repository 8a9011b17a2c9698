//! What networks' predictions depend on: the diagonal of the Fisher information by parameter, and second moments of gradients
//! at what layers make.
//!
//! Both are `E_x Σ_y p(y|x) g gᵀ` of g = ∂ log p(y|x), whose expectation over y is a sum over directions of the logits: with
//! p = softmax(z), `Σ_y p_y (e_y − p)(e_y − p)ᵀ` is the curvature, direction by direction one backward pass. Of more classes
//! than [`EXACT`], unless all are asked for, [`DRAWN`] random sums of the directions are taken in their place, with signs
//! drawn from the image itself, so that they are the same in any batch or shard: their squares have the same expectation, and
//! over n images an entry is off by a share of √(2 / (8 n)) at most, less than other images would change it. An output without
//! classes counts as Gaussian about itself.

use crate::convert::numbers;
use crate::forward::Statistics;
use crate::ops::features_last;
use crate::parallel::{Failure, InOrder, each_batch, n_workers, read};
use crate::probes::content;
use crate::{Device, Error, Network, Result};
use ndarray::{Array4, ArrayView2, Axis};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use tch::{Kind, Tensor};
use zipit::images::ImageBatches;
use zipit::refit::Gram;
use zipit::watch::Watch;
use zipit::{Fisher, Model};

/// Classes up to which each is a direction.
pub const EXACT: usize = 10;
/// Directions that are drawn per output beyond.
pub const DRAWN: usize = 8;

/// The class of each image of a batch, by name: for the empirical Fisher information.
pub type Labels<'a> = dyn Fn(usize) -> Vec<String> + Sync + 'a;

/// A network whose gradients are taken.
#[derive(Debug)]
pub struct Differentiable {
    network: Network,
    /// Per output, the classes; none of features.
    classes: Vec<Vec<String>>,
    /// Names of the tensors whose Fisher information is measured.
    learned: Vec<String>,
    /// Module and value of the layers at which gradients are summed up.
    layers: Vec<(String, String)>,
    /// Classes up to which each is a direction.
    n_exact: usize,
}

impl Differentiable {
    /// A network for the Fisher information of the tensors `learned` and gradients at the layers of the modules `layers`.
    ///
    /// # Errors
    /// When graph and weights do not fit each other, the device is not there, or a module is not.
    ///
    /// # Panics
    /// When the network has no such tensor.
    pub fn new(model: &Model, learned: &[String], layers: &[String], device: Device) -> Result<Self> {
        let value = |module: &String| {
            let node = model.graph.nodes.iter().find(|node| node.module.as_ref() == Some(module));
            let missing = || Error::Request(format!("the network has no layer `{module}`"));
            node.map(|node| (module.clone(), node.name.clone())).ok_or_else(missing)
        };
        let layers: Vec<(String, String)> = layers.iter().map(value).collect::<Result<_>>()?;
        let made: BTreeSet<String> = layers.iter().map(|(_, value)| value.clone()).collect();
        // Not folded: gradients are those by the network's own weights.
        let mut network = Network::recorded(model, &made, device)?;
        for name in learned {
            let tensor = network.tensor(name).f_detach()?.f_requires_grad_(true)?;
            network.set_tensor(name, tensor);
        }
        let classes = |at: usize| model.tasks.get(at).map(|task| task.classes.clone()).unwrap_or_default();
        let classes = (0..model.graph.outputs.len()).map(classes).collect();
        Ok(Self { network, classes, learned: learned.to_vec(), layers, n_exact: EXACT })
    }

    /// The same with every class as a direction, however many there are.
    #[must_use]
    pub fn exact(self) -> Self {
        Self { n_exact: usize::MAX, ..self }
    }

    fn replicate(&self) -> Self {
        let Self { network, classes, learned, layers, n_exact } = self;
        let (classes, learned, layers) = (classes.clone(), learned.clone(), layers.clone());
        Self { network: network.replicate(), classes, learned, layers, n_exact: *n_exact }
    }

    /// Weights of the logits, one per direction, of what a run has put out: `[B, …]` as the outputs, in the order of outputs.
    fn directions(
        &self,
        outputs: &[Tensor],
        images: &Array4<f32>,
        labels: Option<&[String]>,
    ) -> Result<Vec<(usize, Tensor)>> {
        let mut all = Vec::new();
        for (at, (output, classes)) in outputs.iter().zip(&self.classes).enumerate() {
            let z = output.f_detach()?.f_flatten(1, -1)?;
            let (n_images, k) = z.size2()?;
            let p = if classes.is_empty() { z.f_ones_like()? } else { z.f_softmax(1, Kind::Float)? };
            let root = p.f_sqrt()?;
            // Σ v (e − p) of what `v` gives each class.
            let along = |v: Tensor| -> Result<Tensor> {
                let v = v.f_mul(&root)?;
                let free = if classes.is_empty() {
                    v
                } else {
                    v.f_sub(&p.f_mul(&v.f_sum_dim_intlist(1, true, Kind::Float)?)?)?
                };
                Ok(free.f_view_as(output)?)
            };
            if let Some(labels) = labels {
                let place = |name: &String| classes.iter().position(|class| class == name);
                let weights = z.f_zeros_like()?;
                for (b, label) in (0..).zip(labels) {
                    let Some(y) = place(label) else { continue };
                    let mut own = weights.f_get(b)?;
                    let _ = own.f_sub_(&p.f_get(b)?)?;
                    let _ = own.f_narrow(0, y as i64, 1)?.f_add_scalar_(1.0)?;
                }
                all.push((at, weights.f_view_as(output)?));
                continue;
            }
            if k as usize <= self.n_exact {
                for y in 0..k {
                    let v = z.f_zeros_like()?;
                    let _ = v.f_narrow(1, y, 1)?.f_fill_(1.0)?;
                    all.push((at, along(v)?));
                }
                continue;
            }
            let mut signs = vec![vec![0.0_f32; (n_images * k) as usize]; DRAWN];
            for (b, image) in images.outer_iter().enumerate() {
                let mut key = [0; 32];
                key[..8].copy_from_slice(&content(image).to_le_bytes());
                key[8..16].copy_from_slice(&(at as u64).to_le_bytes());
                let mut rng = ChaCha8Rng::from_seed(key);
                for signs in &mut signs {
                    for sign in &mut signs[b * k as usize..(b + 1) * k as usize] {
                        *sign = if rng.next_u32() & 1 == 0 { -1.0 } else { 1.0 } / (DRAWN as f32).sqrt();
                    }
                }
            }
            for signs in signs {
                let signs = Tensor::f_from_slice(&signs)?.f_view((n_images, k))?.f_to_device(z.device())?;
                all.push((at, along(signs)?));
            }
        }
        Ok(all)
    }

    /// Adds the squared gradients of every single image.
    fn squares(&self, images: &Array4<f32>, labels: Option<&[String]>) -> Result<Vec<Vec<f64>>> {
        let weights: Vec<Tensor> = self.learned.iter().map(|name| self.network.tensor(name).shallow_clone()).collect();
        let sums: Vec<Tensor> = weights.iter().map(Tensor::f_zeros_like).collect::<Result<_, _>>()?;
        let sums: Vec<Tensor> = sums.into_iter().map(|sum| sum.f_detach()).collect::<Result<_, _>>()?;
        for b in 0..images.shape()[0] {
            let image = images.slice_axis(Axis(0), (b..=b).into()).to_owned();
            self.pulled(&image, labels.map(|labels| &labels[b..=b]), &weights, &mut |i, gradient| {
                let mut sum = sums[i].shallow_clone();
                let _ = sum.f_addcmul_(gradient, gradient)?;
                Ok(())
            })?;
        }
        sums.iter().map(numbers::<f64>).collect()
    }

    /// Σ g gᵀ at each layer, `[O, O]`, and the number of positions of all images.
    fn products(&self, images: &Array4<f32>, labels: Option<&[String]>) -> Result<Vec<(u64, i64, Vec<f32>)>> {
        let input = self.network.input(images)?;
        let mut run = self.network.start(input, Statistics::Running);
        let end = self.network.graph().nodes.len();
        tch::with_grad(|| run.advance_to(end))?;
        let made: Vec<Tensor> =
            self.layers.iter().map(|(_, value)| Ok(run.value(value)?.shallow_clone())).collect::<Result<_>>()?;
        let outputs = run.outputs()?;
        let mut sums: Vec<Option<(u64, Tensor)>> = made.iter().map(|_| None).collect();
        self.backward(&outputs, images, labels, &made, &mut |i, gradient| {
            let o = gradient.size()[1];
            let samples = features_last(gradient)?.f_reshape([-1, o])?;
            let product = samples.f_tr()?.f_mm(&samples)?;
            match &mut sums[i] {
                Some((_, sum)) => drop(sum.f_add_(&product)?),
                none => *none = Some((samples.size()[0] as u64, product)),
            }
            Ok(())
        })?;
        let read = |(sum, made): (Option<(u64, Tensor)>, &Tensor)| -> Result<_> {
            let o = made.size()[1];
            let n = made.numel() as u64 / o.max(1) as u64;
            Ok(match sum {
                Some((n, sum)) => (n, o, numbers::<f32>(&sum)?),
                None => (n, o, vec![0.0; (o * o) as usize]),
            })
        };
        sums.into_iter().zip(&made).map(read).collect()
    }

    /// Runs the network and shows the gradients by `of`, direction by direction; nothing where there is none.
    fn pulled(
        &self,
        images: &Array4<f32>,
        labels: Option<&[String]>,
        of: &[Tensor],
        show: &mut dyn FnMut(usize, &Tensor) -> Result<()>,
    ) -> Result<()> {
        let input = self.network.input(images)?;
        let outputs = tch::with_grad(|| self.network.start(input, Statistics::Running).outputs())?;
        self.backward(&outputs, images, labels, of, show)
    }

    fn backward(
        &self,
        outputs: &[Tensor],
        images: &Array4<f32>,
        labels: Option<&[String]>,
        of: &[Tensor],
        show: &mut dyn FnMut(usize, &Tensor) -> Result<()>,
    ) -> Result<()> {
        let mut directions = self.directions(outputs, images, labels)?.into_iter().peekable();
        while let Some((at, weights)) = directions.next() {
            if !outputs[at].requires_grad() {
                continue;
            }
            let along = tch::with_grad(|| outputs[at].f_mul(&weights)?.f_sum(Kind::Float))?;
            let again = directions.peek().is_some();
            let found = Tensor::f_run_backward(&[along], of, again, false)?;
            for (i, gradient) in found.iter().enumerate().filter(|(_, gradient)| gradient.defined()) {
                show(i, gradient)?;
            }
        }
        Ok(())
    }
}

/// Adds what each network's predictions depend on, of the batches in `range`, to its Fisher information and to the gradients by
/// module, and returns how many batches were done: all, or after an interruption the first so many of the range.
///
/// # Errors
/// Images that cannot be read, sums of other networks, and gradients that are not finite, by tensor or layer. The sums are of
/// no use after an error.
///
/// # Panics
/// Never: products are square.
pub fn measure(
    networks: &[Differentiable],
    (fisher, gradients): (&mut [Fisher], &mut BTreeMap<String, Gram>),
    labels: Option<&Labels<'_>>,
    batches: &dyn ImageBatches,
    range: Range<usize>,
    watch: &dyn Watch,
) -> Result<usize> {
    let Some(first) = networks.first() else { return Err(Error::Request("no networks to measure".into())) };
    let n = n_workers(first.network.device(), range.len());
    let workers: Vec<Vec<Differentiable>> =
        (0..n).map(|_| networks.iter().map(Differentiable::replicate).collect()).collect();
    let failure = Failure::default();
    let with_fisher = !fisher.is_empty();
    let sums = InOrder::new(range.start, (fisher, gradients));
    each_batch(workers, range, watch, &failure, |networks: &mut Vec<Differentiable>, batch| {
        let images = read(batches, batch)?;
        let labels = labels.map(|labels| labels(batch));
        let labels = labels.as_deref();
        let mut found = Vec::new();
        for network in networks.iter() {
            let squares = if with_fisher { network.squares(&images, labels)? } else { vec![] };
            let products = if network.layers.is_empty() { vec![] } else { network.products(&images, labels)? };
            found.push((squares, products));
        }
        let n_images = images.shape()[0] as u64;
        // Whoever adds it, it is this batch's.
        sums.hand_in(batch, (batch, n_images, found), &failure, |(fisher, gradients), (batch, n_images, found)| {
            for (t, (squares, products)) in found.into_iter().enumerate() {
                if let Some(fisher) = fisher.get_mut(t) {
                    let sums = networks[t].learned.iter().cloned().zip(squares).collect();
                    let own = Fisher { count: n_images, sums };
                    own.validate().map_err(|e| not_finite(t, batch, &e))?;
                    fisher.merge(&own)?;
                }
                for ((module, _), (n_samples, o, outer)) in networks[t].layers.iter().zip(products) {
                    let o = o as usize;
                    let Some(Gram::Own(each)) = gradients.get_mut(module) else {
                        return Err(Error::Fault(format!("no room for the gradients at `{module}`")));
                    };
                    if each.len() <= t || each[t].n_joint() != o {
                        return Err(Error::Request(format!("the gradients at `{module}` are of other networks")));
                    }
                    if outer.iter().any(|x| !x.is_finite()) {
                        return Err(not_finite(t, batch, &format!("the gradients at `{module}` are NaN or too large")));
                    }
                    let outer = ArrayView2::from_shape((o, o), &outer).expect("a square");
                    // Over a network's own classes the mean gradient is zero.
                    each[t].add_batch(n_samples, &vec![0.0; o], outer);
                }
            }
            Ok(())
        })?;
        Ok(n_images)
    })
}

fn not_finite(t: usize, batch: usize, problem: &dyn std::fmt::Display) -> Error {
    Error::NotFinite(format!("network {}, batch {batch}: {problem}; check its weights", t + 1))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::convert::to_array;
    use crate::initialise::initialise;
    use ndarray::Array2;
    use zipit::graph::{Arch, ArchSpec};
    use zipit::{Preprocess, Task};

    fn model(n_classes: usize) -> Model {
        let graph = ArchSpec::new(Arch::ResNet20, 0.25, 1, [8, 8], n_classes).build().unwrap();
        let weights = initialise(&graph, 1).unwrap();
        let task = Task { name: "t".into(), classes: (0..n_classes).map(|c| c.to_string()).collect() };
        let preprocess = Preprocess::new([8, 8], vec![0.5], vec![0.5]);
        Model { graph, weights, tasks: vec![task], preprocess, joint: None }
    }

    fn images(n: usize) -> Array4<f32> {
        Array4::from_shape_fn((n, 1, 8, 8), |(b, _, y, x)| ((b * 31 + y * 7 + x * x) % 11) as f32 / 3.0 - 1.0)
    }

    /// Σ of u uᵀ over directions and images is Σ of diag(p) − p pᵀ: exactly, and drawn nearly so.
    #[test]
    fn directions_add_up_to_the_curvature_of_the_logits() {
        for (n_classes, n_images, bound) in [(4, 3, 1e-6), (12, 2000, 0.02)] {
            let model = model(n_classes);
            let network = Differentiable::new(&model, &[], &[], Device::Cpu).unwrap();
            let z = Tensor::f_from_slice(&[0.5_f32, 1.0, -1.0, 0.0, 2.0, 0.3, 0.1, -0.4, 0.0, 1.5, 0.2, -2.0]).unwrap();
            let z = z.f_narrow(0, 0, n_classes as i64).unwrap().f_repeat([n_images as i64, 1]).unwrap();
            let different = Array4::from_shape_fn((n_images, 1, 8, 8), |(b, ..)| b as f32);
            let found = network.directions(&[z.shallow_clone()], &different, None).unwrap();
            assert_eq!(found.len(), if n_classes <= EXACT { n_classes } else { DRAWN });
            let mut sum = Array2::<f64>::zeros((n_classes, n_classes));
            for (_, u) in found {
                let u = to_array(&u).unwrap().mapv(f64::from).into_shape_with_order((n_images, n_classes)).unwrap();
                sum += &(u.t().dot(&u) / n_images as f64);
            }
            let p = to_array(&z.f_softmax(1, Kind::Float).unwrap()).unwrap();
            for ((i, j), &x) in sum.indexed_iter() {
                let [a, b] = [i, j].map(|k| f64::from(p[[0, k]]));
                let wanted = if i == j { a } else { 0.0 } - a * b;
                assert!((x - wanted).abs() < bound, "{n_classes} classes, {i} {j}: {x} {wanted}");
            }
            let every = network.exact().directions(&[z], &different, None).unwrap();
            assert_eq!(every.len(), n_classes);
        }
    }

    /// The label's direction alone, and none where no class is the label.
    #[test]
    fn labels_have_one_direction() {
        let network = Differentiable::new(&model(3), &[], &[], Device::Cpu).unwrap();
        let z = Tensor::f_zeros([2, 3], (Kind::Float, tch::Device::Cpu)).unwrap();
        let labels = ["1".to_owned(), "elsewhere".to_owned()];
        let found = network.directions(&[z], &images(2), Some(&labels)).unwrap();
        let [(0, u)] = &found[..] else { panic!("{} directions", found.len()) };
        let third = 1.0 / 3.0;
        for (x, wanted) in numbers::<f32>(u).unwrap().iter().zip([-third, 1.0 - third, -third, 0.0, 0.0, 0.0]) {
            assert!((x - wanted).abs() < 1e-6);
        }
    }
}
