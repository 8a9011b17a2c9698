//! Moments: right, the same for any number of threads, and whole after shards and interruptions.
#![allow(clippy::unwrap_used)]

mod networks;

use ndarray::{Array2, Array4, Axis, Ix4};
use networks::{StopAfter, images, resnet20, with_threads};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use zipit::Collected;
use zipit::graph::Place;
use zipit::graph::{Measured, MergePoint};
use zipit::images::ImageBatches;
use zipit::importance::Importance;
use zipit::watch::{Unwatched, Watch};
use zipit::{Extent, Model, Moments};
use zipit_torch::accumulate;
use zipit_torch::images::InMemory;
use zipit_torch::{Device, Error, ImageError, Network, Probes, Result, convert::to_array};

type Sums = BTreeMap<String, Moments>;

fn points(model: &Model) -> Vec<MergePoint> {
    model.graph.merge_points(&model.graph.spaces().unwrap())
}

fn measure(
    models: &[Model],
    batches: &dyn ImageBatches,
    range: Range<usize>,
    into: &mut Sums,
    watch: &dyn Watch,
) -> Result<usize> {
    let points = points(&models[0]);
    let keep: BTreeSet<String> = points.iter().map(|p| p.name.clone()).collect();
    let networks: Vec<Network> = models.iter().map(|m| Network::folded(m, &keep, Device::Cpu).unwrap()).collect();
    accumulate::moments(&networks.iter().collect::<Vec<_>>(), &points, batches, range, into, watch)
}

fn all(models: &[Model], batches: &dyn ImageBatches) -> Sums {
    let mut sums = Sums::new();
    assert_eq!(measure(models, batches, 0..batches.n_batches(), &mut sums, &Unwatched).unwrap(), batches.n_batches());
    sums
}

fn two_models() -> [Model; 2] {
    [resnet20(1), resnet20(2)]
}

fn relative_difference(a: &Moments, b: &Moments) -> f64 {
    assert_eq!(a.count, b.count);
    let scale = b.outer.iter().fold(0.0_f64, |m, x| m.max(x.abs()));
    let values = a.sum.iter().chain(&a.outer).zip(b.sum.iter().chain(&b.outer));
    values.fold(0.0_f64, |m, (x, y)| m.max((x - y).abs())) / scale
}

/// Σz and Σzzᵀ in f64 with ndarray, from the values seen in the unfolded networks.
fn expected(models: &[Model], images: &Array4<f32>, point: &str) -> Moments {
    let features: Vec<Array2<f64>> = models
        .iter()
        .map(|model| {
            let network = Network::new(model, Device::Cpu).unwrap();
            let mut features = None;
            network
                .observe(network.input(images).unwrap(), |name, value| {
                    if name == point {
                        let value = to_array(value)?.mapv(f64::from).into_dimensionality::<Ix4>().unwrap();
                        let by_position = value.permuted_axes([0, 2, 3, 1]);
                        let (b, h, w, c) = by_position.dim();
                        let rows: Vec<f64> = by_position.iter().copied().collect();
                        features = Some(Array2::from_shape_vec((b * h * w, c), rows).unwrap());
                    }
                    Ok(())
                })
                .unwrap();
            features.unwrap()
        })
        .collect();
    let z = ndarray::concatenate(Axis(1), &features.iter().map(Array2::view).collect::<Vec<_>>()).unwrap();
    let outer = z.t().dot(&z);
    Moments {
        count: z.nrows() as u64,
        sum: z.sum_axis(Axis(0)).to_vec(),
        outer: (0..z.ncols()).flat_map(|i| outer.row(i).iter().skip(i).copied().collect::<Vec<_>>()).collect(),
    }
}

#[test]
fn moments_are_those_of_the_observed_features() {
    let models = [resnet20(1), resnet20(2), resnet20(3)];
    let images = images(7, [1, 8, 8], 4);
    let found = all(&models, &InMemory::new(images.clone(), 3));
    assert_eq!(found.len(), 12);
    for (name, moments) in &found {
        let expected = expected(&models, &images, name);
        let error = relative_difference(moments, &expected);
        assert!(error < 1e-5, "{name}: {error}");
        moments.validate(name).unwrap();
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    let data = InMemory::new(images(23, [1, 8, 8], 5), 2);
    let one = with_threads(1, || all(&two_models(), &data));
    for n_threads in [2, 5, 16] {
        assert_eq!(with_threads(n_threads, || all(&two_models(), &data)), one, "{n_threads} threads");
    }
}

#[test]
fn shards_add_up_to_the_whole() {
    let data = InMemory::new(images(22, [1, 8, 8], 6), 2);
    let models = two_models();
    let whole = all(&models, &data);
    let mut sums = Sums::new();
    for range in [0..4, 4..5, 5..11] {
        let mut shard = Sums::new();
        measure(&models, &data, range, &mut shard, &Unwatched).unwrap();
        for (name, moments) in shard {
            sums.entry(name).or_insert_with(|| Moments::zeros(moments.n_joint())).merge(&moments).unwrap();
        }
    }
    for (name, moments) in &whole {
        assert!(relative_difference(&sums[name], moments) < 1e-12, "{name}");
    }
}

#[test]
fn an_interrupted_run_goes_on_where_it_stopped() {
    let data = InMemory::new(images(24, [1, 8, 8], 7), 2);
    let models = two_models();
    let whole = all(&models, &data);
    for n_threads in [1, 3] {
        let mut sums = Sums::new();
        let watch = StopAfter::new(7);
        let done = with_threads(n_threads, || measure(&models, &data, 0..12, &mut sums, &watch).unwrap());
        assert!((4..12).contains(&done), "{done}");
        assert_eq!(watch.seen(), 2 * done as u64, "what was said to be done is done");
        assert_eq!(sums["layer1.0.relu"].count, 2 * 64 * done as u64);
        assert_eq!(measure(&models, &data, done..12, &mut sums, &Unwatched).unwrap(), 12 - done);
        assert_eq!(sums, whole, "{n_threads} threads");
    }
}

/// Batch 3 cannot be read; batch 5 holds a NaN if asked for.
struct Broken(InMemory, Option<usize>);

impl ImageBatches for Broken {
    fn n_batches(&self) -> usize {
        self.0.n_batches()
    }

    fn n_images_in(&self, n: usize) -> usize {
        self.0.n_images_in(n)
    }

    fn batch(&self, i: usize) -> Result<Array4<f32>, ImageError> {
        match self.1 {
            None if i == 3 => Err("cat/0003.png: not a PNG".into()),
            Some(poisoned) if i == poisoned => Ok(self.0.batch(i)?.mapv(|_| f32::NAN)),
            _ => self.0.batch(i),
        }
    }
}

#[test]
fn failures_name_the_batch_and_leave_no_thread_waiting() {
    for n_threads in [1, 4] {
        let message = |poison| {
            with_threads(n_threads, || {
                let data = Broken(InMemory::new(images(40, [1, 8, 8], 8), 2), poison);
                measure(&two_models(), &data, 0..20, &mut Sums::new(), &Unwatched).unwrap_err().to_string()
            })
        };
        assert_eq!(message(None), "batch 3: cat/0003.png: not a PNG");
        let found = message(Some(5));
        assert!(found.starts_with("`layer1.0.relu`, batch 5: feature 0 of network 1 is NaN or too large"), "{found}");
    }
}

#[test]
fn features_too_large_to_square_are_refused() {
    let mut models = two_models();
    models[1].weights.get_mut("bn1.bias").unwrap().fill(1e30);
    let data = InMemory::new(images(2, [1, 8, 8], 8), 2);
    let error = measure(&models, &data, 0..1, &mut Sums::new(), &Unwatched).unwrap_err();
    assert!(matches!(error, Error::NotFinite(_)), "{error}");
    assert!(error.to_string().contains("of network 2 is NaN or too large"), "{error}");
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let (a, b) = (
        resnet20(1),
        networks::model(
            zipit::graph::ArchSpec::new(zipit::graph::arch::Arch::ResNet20, 0.5, 1, [8, 8], 3).build().unwrap(),
            1,
        ),
    );
    let data = InMemory::new(images(2, [1, 8, 8], 8), 2);
    let network = |m: &Model| Network::new(m, Device::Cpu).unwrap();
    let (net_a, net_b) = (network(&a), network(&b));
    let points = points(&a);
    let go = |networks: &[&Network], points: &[MergePoint], range, into: &mut Sums| {
        accumulate::moments(networks, points, &data, range, into, &Unwatched).unwrap_err().to_string()
    };
    let mut fresh = Sums::new();
    assert_eq!(go(&[], &points, 0..1, &mut fresh), "no networks to measure");
    assert!(go(&[&net_a, &net_b], &points, 0..1, &mut fresh).contains("model 2: `conv1` is Conv2d 1→8"));
    assert_eq!(go(&[&net_a], &points, 0..2, &mut fresh), "batches 0–2 of 1");
    let measured = Measured { value: "nowhere".into(), features: None };
    let elsewhere = MergePoint { measured, ..points[0].clone() };
    assert!(go(&[&net_a], &[elsewhere], 0..1, &mut fresh).contains("no value `nowhere`"));
    let wrong_size = MergePoint { dim: 99, ..points[0].clone() };
    assert!(go(&[&net_a], &[wrong_size], 0..1, &mut fresh).contains("the merge point says 99"));
    let mut other = Sums::from([(points[0].name.clone(), Moments::zeros(3))]);
    assert!(go(&[&net_a], &points, 0..1, &mut other).contains("holds moments of 3 features, but 1 networks have 4"));
}

/// A network whose stem has channels of standard deviation 0.3 about `mean`, and one that is constant.
fn about(mean: f32, seed: u64) -> Model {
    let mut model = resnet20(seed);
    for (name, value) in [("bn1.weight", 0.3), ("bn1.bias", mean)] {
        model.weights.get_mut(name).unwrap().fill(value);
    }
    model.weights.get_mut("bn1.weight").unwrap()[1] = 0.0;
    model
}

#[test]
fn a_small_variance_about_a_large_mean_is_measured() {
    let images = images(64, [1, 8, 8], 5);
    let data = InMemory::new(images, 8);
    let variance = |mean: f32| -> Vec<f64> {
        let models = [about(mean, 1), about(mean, 2)];
        let keep = BTreeSet::from(["bn1".to_owned(), "relu".to_owned()]);
        let networks: Vec<Network> = models.iter().map(|m| Network::folded(m, &keep, Device::Cpu).unwrap()).collect();
        let measured = Measured { value: "relu".into(), features: None };
        let point = MergePoint { name: "relu".into(), measured, ..points(&models[0])[0].clone() };
        let mut sums = Sums::new();
        let networks: Vec<&Network> = networks.iter().collect();
        let all = 0..data.n_batches();
        accumulate::moments(&networks, &[point], &data, all, &mut sums, &Unwatched).unwrap();
        sums["relu"].covariance().diag().to_vec()
    };
    // Far enough from 0 that ReLU does nothing.
    let near = variance(30.0);
    for mean in [300.0, 1000.0] {
        for (k, (a, b)) in near.iter().zip(variance(mean)).enumerate() {
            let tolerance = if k % 4 == 1 { 1e-6 } else { 2e-3 * a };
            assert!((a - b).abs() <= tolerance, "{mean}, feature {k}: {a} {b}");
        }
    }
    assert!(near[1].abs() < 1e-9 && near[0] > 1e-3, "{near:?}");
}

#[test]
fn ranges_are_those_of_the_values_for_any_threads_and_parts() {
    let models = two_models();
    let images = images(21, [1, 8, 8], 4);
    let data = InMemory::new(images.clone(), 4);
    let spaces = models[0].graph.spaces().unwrap();
    let values = models[0].graph.read_values(&spaces);
    let shapes = models[0].graph.shapes().unwrap();
    let networks = || models.iter().map(|m| Network::new(m, Device::Cpu).unwrap()).collect::<Vec<Network>>();
    let measure = |parts: &[Range<usize>]| {
        let networks = networks();
        let networks: Vec<&Network> = networks.iter().collect();
        let none = |value: &String| (value.clone(), Extent::none(2 * shapes[value.as_str()][0]));
        let mut totals = Collected { extents: values.iter().map(none).collect(), ..Collected::default() };
        for part in parts {
            let points = &points(&models[0])[2..4];
            accumulate::measure(&networks, points, &mut totals, None, &data, part.clone(), &Unwatched).unwrap();
        }
        totals.extents
    };
    let whole = with_threads(1, || measure(&[0..3, 3..6]));
    assert_eq!(whole, with_threads(3, || measure(&[4..6, 0..4])));
    for (value, extent) in &whole {
        for (i, network) in networks().iter().enumerate() {
            let mut expected: Option<Vec<[f32; 2]>> = None;
            network
                .observe(network.input(&images).unwrap(), |name, tensor| {
                    if name == value {
                        let c = tensor.size()[1];
                        let x = to_array(&tensor.transpose(0, 1).contiguous().view([c, -1])).unwrap();
                        let range = |x: &[f32]| {
                            x.iter().fold([f32::INFINITY, f32::NEG_INFINITY], |[l, h], &x| [l.min(x), h.max(x)])
                        };
                        let rows = x.outer_iter().map(|row| range(&row.iter().copied().collect::<Vec<_>>()));
                        expected = Some(rows.collect());
                    }
                    Ok(())
                })
                .unwrap();
            for (k, [low, high]) in expected.unwrap().into_iter().enumerate() {
                let at = i * shapes[value.as_str()][0] + k;
                // Another batch size may round otherwise.
                let near = |a: f32, b: f32| (a - b).abs() <= 1e-5 * (1.0 + b.abs());
                assert!(near(extent.low[at], low) && near(extent.high[at], high), "{value} {at}");
            }
        }
    }
}

/// Importance at all points of the models' first images.
fn important(models: &[Model], batches: &dyn ImageBatches, range: Range<usize>, into: Option<Collected>) -> Collected {
    let points = points(&models[0]);
    let places: Vec<Vec<Place>> = points.iter().map(|point| models[0].graph.places(point).unwrap()).collect();
    let made: BTreeSet<String> = places.iter().flatten().map(|place| place.made.value.clone()).collect();
    let read = places.iter().flatten().map(|place| place.read.value.clone());
    let keep: BTreeSet<String> = points.iter().map(|p| p.name.clone()).chain(read).chain(made.clone()).collect();
    let networks: Vec<Network> =
        models.iter().map(|m| Network::traced(m, &keep, &made, Device::Cpu).unwrap()).collect();
    let networks: Vec<&Network> = networks.iter().collect();
    let probes = Probes::new(7, &models.iter().collect::<Vec<_>>());
    let nothing = || Collected {
        importance: points
            .iter()
            .zip(&places)
            .map(|(point, places)| (point.name.clone(), Importance::zeros(places, models.len(), point.dim)))
            .collect(),
        ..Collected::default()
    };
    let mut totals = into.unwrap_or_else(nothing);
    let n = range.len();
    let done = accumulate::measure(&networks, &points, &mut totals, Some(&probes), batches, range, &Unwatched);
    assert_eq!(done.unwrap(), n);
    totals
}

fn gradients(collected: &Collected) -> impl Iterator<Item = &Moments> {
    collected.importance.values().flat_map(|importance| &importance.places).flat_map(|place| &place.gradients)
}

#[test]
fn importance_is_the_same_on_any_threads_in_any_parts_and_batches() {
    let models = two_models();
    let images = images(20, [1, 8, 8], 3);
    let batches = InMemory::new(images.clone(), 4);
    let whole = with_threads(1, || important(&models, &batches, 0..5, None));
    assert_eq!(with_threads(3, || important(&models, &batches, 0..5, None)), whole);
    let first = important(&models, &batches, 0..2, None);
    assert_eq!(important(&models, &batches, 2..5, Some(first)), whole);
    // The moments are what they are without importance.
    let plain = all(&models, &batches);
    for (name, moments) in &whole.moments {
        assert!(relative_difference(moments, &plain[name]) < 1e-6, "{name}");
    }
    // A probe belongs to its image, whatever batch that is in.
    let other = important(&models, &InMemory::new(images, 7), 0..3, None);
    for (a, b) in gradients(&other).zip(gradients(&whole)) {
        assert!(relative_difference(a, b) < 1e-4);
    }
    // A stream is measured at its stem and at all its sums.
    let n_places: Vec<usize> = whole.importance.values().map(|importance| importance.places.len()).collect();
    assert_eq!(n_places.iter().filter(|n| **n > 1).count(), 3, "{n_places:?}");
}
