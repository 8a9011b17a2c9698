//! Sums over one batch of a layer's inputs and targets.

use super::offsets::Offsets;
use super::patches::{flat, patches};
use super::running::SAMPLES;
use super::sampled::Sampled;
use super::squares::{Crossed, NARROW, Squares, Strip};
use crate::accumulate::samples;
use crate::convert::numbers;
use crate::ops::{features_first, features_last};
use crate::{Error, Result};
use std::sync::Arc;
use tch::kind::Element;
use tch::{Kind, Tensor};
use zipit::graph::{Node, Op};
use zipit::refit::{Design, Sums, names};

/// Sums of [`SAMPLES`] that are made in one call, where samples are narrow.
const PARTS: i64 = 16;

/// What a batch's images give at a layer, or at several that are solved as one: what each reads, `[B, C, H, W]` or
/// `[B, F]`, and the target of all.
pub(super) struct Samples<'a> {
    pub read: Vec<(&'a Node, Tensor)>,
    /// At the chosen positions, where not all are.
    pub y: Tensor,
    pub way: Way<'a>,
}

/// How sums over a batch's images are taken.
#[derive(Clone, Copy)]
pub(super) enum Way<'a> {
    /// Of what every output is a sum of, which is a convolution's patch.
    Patches,
    /// The same at some positions.
    Sampled(&'a Sampled),
    /// Of the images at every offset, without patches.
    Offsets(&'a Offsets),
}

/// What sums are counted from: x₀ `[G, F]` and y₀ `[G, O]`.
pub(super) type Origin = [Vec<f32>; 2];

/// Sums of one batch: of patches x, y, yx and yy, as [`Sums::add`] takes them, and xx; or as [`Offsets`] makes them. What
/// a batch sums up to is no more exact than f32.
pub(super) struct Products {
    count: u64,
    origin: Origin,
    sums: Vec<Vec<f32>>,
    squares: Vec<Strip>,
}

/// Sums of all batches so far: those of patches are at once what they will be.
pub(super) enum Tally {
    Patches(Sums),
    Offsets { plan: Arc<Offsets>, design: Design, count: u64, origin: Origin, sums: Vec<Vec<f64>> },
}

impl Tally {
    pub fn zeros(design: Design, offsets: Option<&Arc<Offsets>>) -> Self {
        match offsets {
            Some(plan) => {
                Self::Offsets { plan: Arc::clone(plan), design, count: 0, origin: Origin::default(), sums: vec![] }
            }
            None => Self::Patches(Sums::zeros(design)),
        }
    }

    pub fn add(&mut self, part: Products) {
        match self {
            Self::Patches(sums) => {
                let [x, y] = &part.origin;
                let [a, b, c, d] = &part.sums[..] else { unreachable!("four sums") };
                sums.add(part.count, [x, y], [a, b, c, d].map(Vec::as_slice));
                for Strip { group, first, numbers, .. } in &part.squares {
                    sums.add_squares(*group, *first, numbers);
                }
            }
            Self::Offsets { count, origin, sums, .. } => {
                sums.resize_with(part.sums.len(), Vec::new);
                for (sum, part) in sums.iter_mut().zip(&part.sums) {
                    sum.resize(part.len(), 0.0);
                    sum.iter_mut().zip(part).for_each(|(sum, &part)| *sum += f64::from(part));
                }
                (*count, *origin) = (*count + part.count, part.origin);
            }
        }
    }

    pub fn into_sums(self) -> Sums {
        match self {
            Self::Patches(sums) => sums,
            Self::Offsets { design, count: 0, .. } => Sums::zeros(design),
            Self::Offsets { plan, design, count, origin: [x, y], sums: all } => {
                let mut sums = Sums::zeros(design);
                let [of_x, of_y, xx, yx, yy] = plan.spread_out(&all, count as f64, &x);
                drop(all);
                sums.add(count, [&x, &y], [of_x, of_y, yx, yy].each_ref().map(Vec::as_slice));
                for (group, square) in xx.chunks_exact(design.n_inputs.pow(2)).enumerate() {
                    sums.add_squares(group, 0, square);
                }
                sums
            }
        }
    }
}

impl Samples<'_> {
    fn values(&self) -> Vec<Tensor> {
        self.read.iter().map(|(_, x)| x.shallow_clone()).collect()
    }

    /// The means of this batch.
    pub fn origin(&self) -> Result<Origin> {
        if let Way::Offsets(offsets) = self.way {
            return offsets.origin(&self.values(), &self.y);
        }
        let (x, y) = self.spread_out(&(0..self.y.size()[0]).collect::<Vec<_>>())?;
        let mean = |t: Tensor| numbers(&t.f_mean_dim(1, true, Kind::Float)?.f_nan_to_num(0.0, 0.0, 0.0)?);
        Ok([mean(x)?, mean(y)?])
    }

    /// `[G, S, F]` and `[G, S, O]`, of some of the images.
    fn spread_out(&self, rows: &[i64]) -> Result<(Tensor, Tensor)> {
        let read = |(node, x): &(&Node, Tensor)| match (self.way, &node.op) {
            (Way::Sampled(sampled), Op::Conv2d { window, groups, .. }) => {
                flat(&sampled.patches(x, window, rows)?, *groups as i64)
            }
            (Way::Sampled(sampled), op) => inputs(op, &selected(&sampled.of(x)?, rows)?),
            (Way::Patches | Way::Offsets(_), op) => inputs(op, &selected(x, rows)?),
        };
        let each = self.read.iter().map(read).collect::<Result<Vec<_>>>()?;
        let design = Design::of(&self.read[0].0.op).expect("a layer with parameters");
        let x = if let [one] = &each[..] { one.shallow_clone() } else { Tensor::f_cat(&each, 2)? };
        Ok((x, targets(&design, &selected(&self.y, rows)?)?))
    }

    /// What the layers read and their target, of some of the images; and how many positions these have.
    fn of(&self, rows: &[i64]) -> Result<(Vec<Tensor>, Tensor, u64)> {
        let read = self.read.iter().map(|(_, x)| selected(x, rows)).collect::<Result<Vec<_>>>()?;
        let y = selected(&self.y, rows)?;
        let positions: i64 = y.size().iter().enumerate().filter(|(axis, _)| *axis != 1).map(|(_, n)| n).product();
        Ok((read, y, positions as u64))
    }

    fn name(&self) -> String {
        names(self.read.iter().map(|(node, _)| *node))
    }

    /// The sums over some of the images.
    ///
    /// # Errors
    /// Numbers that are not finite.
    pub fn products(&self, rows: &[i64], origin: &Origin, batch: usize) -> Result<Products> {
        let products = match self.way {
            Way::Offsets(offsets) => {
                let (read, y, count) = self.of(rows)?;
                let sums = offsets.sums(&read, &y, origin.each_ref().map(Vec::as_slice))?;
                Products { count, origin: origin.clone(), sums, squares: vec![] }
            }
            Way::Patches | Way::Sampled(_) => self.of_patches(rows, origin)?,
        };
        finite(&products.sums, &self.name(), batch)?;
        products.squares.iter().try_for_each(|strip| finite(&[strip.diagonal()], &self.name(), batch))?;
        Ok(products)
    }

    fn of_patches(&self, rows: &[i64], origin: &Origin) -> Result<Products> {
        let (x, y) = self.spread_out(rows)?;
        let (g, n, f) = x.size3()?;
        let o = y.size()[2];
        let like = |numbers: &[f32], t: &Tensor| -> Result<Tensor> {
            Ok(Tensor::f_from_slice(numbers)?.f_reshape([g, 1, -1])?.f_to_device(t.device())?)
        };
        let (x0, y0) = (like(&origin[0], &x)?, like(&origin[1], &y)?);
        let (mut squares, mut crossed) = (Squares::new(g, f, x.device())?, Crossed::new(g, o, f, x.device())?);
        let [of_x, of_y, yy] = summed([&x, &y], [f, o, o], |x, y| {
            let (x, y) = (x.f_sub(&x0)?, y.f_sub(&y0)?);
            squares.add(&x)?;
            crossed.add(&y, &x)?;
            Ok([sum(&x)?, sum(&y)?, sum(&y.f_square()?)?])
        })?;
        let sums = vec![of_x, of_y, crossed.numbers()?, yy];
        Ok(Products { count: n as u64, origin: origin.clone(), sums, squares: squares.strips()? })
    }
}

/// Sums of one batch's residuals, as [`Residuals::add`](zipit::refit::Residuals::add) takes them.
pub(super) struct Cross {
    pub count: u64,
    pub sums: [Vec<f64>; 3],
}

impl Samples<'_> {
    /// The sums over some of the images of y, a residual, with x counted from x₀.
    ///
    /// # Errors
    /// Numbers that are not finite.
    pub fn cross(&self, rows: &[i64], origin: &[f32], batch: usize) -> Result<Cross> {
        let (count, sums) = match self.way {
            Way::Offsets(offsets) => {
                let (read, r, count) = self.of(rows)?;
                let sums = offsets.cross(&read, &r, origin)?;
                (count, offsets.cross_spread_out(&sums, origin))
            }
            Way::Patches | Way::Sampled(_) => self.cross_of_patches(rows, origin)?,
        };
        finite(&sums, &self.name(), batch)?;
        Ok(Cross { count, sums })
    }

    fn cross_of_patches(&self, rows: &[i64], origin: &[f32]) -> Result<(u64, [Vec<f64>; 3])> {
        let (x, r) = self.spread_out(rows)?;
        let (g, n, f) = x.size3()?;
        let o = r.size()[2];
        let x0 = Tensor::f_from_slice(origin)?.f_reshape([g, 1, f])?.f_to_device(x.device())?;
        let mut crossed = Crossed::new(g, o, f, x.device())?;
        let [of_r, rr] = summed([&x, &r], [o, o], |x, r| {
            crossed.add(r, &x.f_sub(&x0)?)?;
            Ok([sum(r)?, sum(&r.f_square()?)?])
        })?;
        Ok((n as u64, [of_r, crossed.numbers()?, rr]))
    }
}

/// Some of the images. Features are last in memory, and stay so: LibTorch would put them first.
fn selected(tensor: &Tensor, rows: &[i64]) -> Result<Tensor> {
    if rows.len() as i64 == tensor.size()[0] {
        return Ok(tensor.shallow_clone());
    }
    let rows = Tensor::f_from_slice(rows)?.f_to_device(tensor.device())?;
    Ok(features_first(&features_last(tensor)?.f_index_select(0, &rows)?)?)
}

/// Over samples.
fn sum(of: &Tensor) -> Result<Tensor> {
    Ok(of.f_sum_dim_intlist(1, false, Kind::Float)?)
}

/// Sums in f64, `[G, ·]` of so many numbers each, over samples x `[G, n, F]` and y `[G, n, O]`, of what some of them sum up
/// to in f32, [`SAMPLES`] at most. Where these are narrow, many such sums are made in one call, `[parts, samples, F]`.
fn summed<T: Element + Default + Clone, const K: usize>(
    [x, y]: [&Tensor; 2],
    widths: [i64; K],
    mut part: impl FnMut(&Tensor, &Tensor) -> Result<[Tensor; K]>,
) -> Result<[Vec<T>; K]> {
    let (g, n, f) = x.size3()?;
    let mut sums = Vec::with_capacity(K);
    for width in widths {
        sums.push(Tensor::f_zeros([g, width], (Kind::Double, x.device()))?);
    }
    let at_once = if g == 1 && f <= NARROW { PARTS * SAMPLES } else { SAMPLES };
    let mut from = 0;
    while from < n {
        let left = n - from;
        let length = if left < SAMPLES { left } else { at_once.min(left / SAMPLES * SAMPLES) };
        let split = |t: &Tensor| -> Result<Tensor> {
            let some = t.f_narrow(1, from, length)?;
            let width = t.size()[2];
            Ok(if g == 1 { some.f_reshape([-1, SAMPLES.min(length), width])? } else { some })
        };
        for (sum, part) in sums.iter_mut().zip(part(&split(x)?, &split(y)?)?) {
            let part = if g == 1 { part.f_sum_dim_intlist(0, true, Kind::Double)? } else { part };
            let _ = sum.f_add_(&part)?;
        }
        from += length;
    }
    let sums: Vec<Vec<T>> = sums.iter().map(numbers).collect::<Result<_>>()?;
    Ok(sums.try_into().ok().expect("as many as there are shapes"))
}

/// # Errors
/// Sums that are not finite.
fn finite<T: Copy + Into<f64>>(sums: &[Vec<T>], name: &str, batch: usize) -> Result<()> {
    if sums.iter().flatten().all(|&sum| sum.into().is_finite()) {
        return Ok(());
    }
    Err(Error::NotFinite(format!(
        "`{name}`, batch {batch}: its inputs or targets are NaN or too large; check the models' weights and their \
         BatchNorm statistics"
    )))
}

/// Sums of one batch of a merged value and of the models' values there, as [`Spread::add`](zipit::refit::Spread::add)
/// takes them.
pub(super) struct Moments {
    pub count: u64,
    pub sums: [Vec<f64>; 4],
}

/// # Errors
/// Numbers that are not finite.
pub(super) fn moments(value: &Tensor, models: &[Tensor], name: &str, batch: usize) -> Result<Moments> {
    let both = |value: &Tensor| -> Result<[Vec<f64>; 2]> {
        let value = value.f_to_kind(Kind::Double)?;
        let sum = |of: Tensor| -> Result<Vec<f64>> { numbers(&of.f_sum_dim_intlist(0, false, Kind::Double)?) };
        Ok([sum(value.shallow_clone())?, sum(value.f_square()?)?])
    };
    let value = samples(value)?;
    let [sum, squares] = both(&value)?;
    let [mut own, mut own_squares] = [vec![], vec![]];
    for model in models {
        let [a, b] = both(&samples(model)?)?;
        own.extend(a);
        own_squares.extend(b);
    }
    let sums = [sum, squares, own, own_squares];
    if sums.iter().flatten().any(|x| !x.is_finite()) {
        return Err(Error::NotFinite(format!(
            "`{name}`, batch {batch}: its features are NaN or too large; check the models' weights and their BatchNorm \
             statistics"
        )));
    }
    Ok(Moments { count: value.size()[0] as u64, sums })
}

/// What each output of a layer is a sum of, `[G, S, F]`: patches for a convolution.
fn inputs(op: &Op, x: &Tensor) -> Result<Tensor> {
    match op {
        Op::Conv2d { window, groups, .. } => patches(x, window, *groups as i64),
        Op::BatchNorm2d { .. } => {
            let c = x.size()[1];
            Ok(x.f_transpose(0, 1)?.f_reshape([c, -1, 1])?)
        }
        _ => Ok(samples(x)?.f_unsqueeze(0)?),
    }
}

/// `[G, S, O]` of `[B, G·O, …]`.
fn targets(design: &Design, y: &Tensor) -> Result<Tensor> {
    let (g, o) = (design.n_groups as i64, design.n_outputs as i64);
    let split = features_last(y)?.f_reshape([-1, g, o])?;
    Ok(split.f_transpose(0, 1)?.f_contiguous()?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{Design, Node, Offsets, Op, Products, Sampled, Samples, Strip, Tensor, Way};
    use tch::Kind;
    use zipit::graph::Window;
    use zipit::refit::Positions;

    fn conv(channels: [usize; 2], groups: usize, window: Window) -> Node {
        let [in_channels, out_channels] = channels;
        let op = Op::Conv2d { in_channels, out_channels, window, groups, bias: true };
        Node { name: "conv".into(), op, inputs: vec!["x".into()], module: None, params: [].into() }
    }

    /// As many as there are, in standard order.
    type Sums = Vec<Vec<f64>>;

    /// Of two images of three: x, y, xx, yx, yy, and those of a residual; by patches and by offsets, counted from the same
    /// numbers.
    fn both(nodes: &[Node], read: &[Tensor], mean: f64) -> [(Sums, Sums); 2] {
        let out: Vec<Tensor> = nodes.iter().zip(read).map(|(node, x)| convolved(&node.op, x)).collect();
        let y = Tensor::randn_like(&out[0]) + mean;
        let shape = |x: &Tensor| -> [usize; 3] { [1, 2, 3].map(|axis| x.size()[axis] as usize) };
        let ops: Vec<&Op> = nodes.iter().map(|node| &node.op).collect();
        let shapes: Vec<[usize; 3]> = read.iter().map(shape).collect();
        let [_, height, width] = shape(&y);
        let plan = Offsets::of(&ops, &shapes, [height, width]).unwrap();
        let read = || nodes.iter().zip(read).map(|(node, x)| (node, x.shallow_clone())).collect();
        let [patches, offsets] =
            [Way::Patches, Way::Offsets(&plan)].map(|way| Samples { read: read(), y: y.shallow_clone(), way });
        let origin = offsets.origin().unwrap();
        let rows = [0, 2];
        let design = Design::of_all(nodes).unwrap();
        [patches, offsets].map(|samples| {
            let products = samples.products(&rows, &origin, 0).unwrap();
            let sums = match samples.way {
                Way::Patches | Way::Sampled(_) => five(&products, design),
                Way::Offsets(plan) => {
                    let wide = |sums: &Vec<f32>| sums.iter().map(|&x| f64::from(x)).collect();
                    let sums: Sums = products.sums.iter().map(wide).collect();
                    plan.spread_out(&sums, products.count as f64, &products.origin[0]).into()
                }
            };
            assert_eq!(sums[2].len(), design.n_groups * design.n_inputs.pow(2));
            (sums, samples.cross(&rows, &origin[0], 0).unwrap().sums.into())
        })
    }

    /// x, y, xx, yx, yy; squares in full, with an empty lower triangle.
    fn five(products: &Products, design: Design) -> Sums {
        let [x, y, yx, yy] = &products.sums[..] else { unreachable!() };
        let f = design.n_inputs;
        let mut xx = vec![0.0; design.n_groups * f * f];
        for Strip { group, first, width, numbers } in &products.squares {
            for (row, sums) in numbers.chunks_exact(*width).enumerate() {
                let to = &mut xx[group * f * f + (first + row) * f..][..f];
                to[*first..].iter_mut().zip(sums).for_each(|(sum, &part)| *sum += f64::from(part));
            }
        }
        let wide = |sums: &Vec<f32>| sums.iter().map(|&x| f64::from(x)).collect();
        vec![wide(x), wide(y), xx, wide(yx), wide(yy)]
    }

    fn convolved(op: &Op, x: &Tensor) -> Tensor {
        let &Op::Conv2d { in_channels, out_channels, window, groups, .. } = op else { unreachable!() };
        let [kernel, stride, padding, dilation] =
            [window.kernel, window.stride, window.padding, window.dilation].map(|two| two.map(|n| n as i64));
        let size = [out_channels as i64, (in_channels / groups) as i64, kernel[0], kernel[1]];
        let weight = Tensor::zeros(size, (Kind::Float, tch::Device::Cpu));
        x.conv2d(&weight, None::<Tensor>, stride, padding, dilation, groups as i64)
    }

    /// Largest difference, in units of the largest sum or of what so many numbers of one add up to; upper triangles.
    fn apart(a: &Sums, b: &Sums, f: usize) -> f64 {
        assert_eq!(a.iter().map(Vec::len).collect::<Vec<_>>(), b.iter().map(Vec::len).collect::<Vec<_>>());
        let mut worst = 0.0_f64;
        // Σy² of one output: about as many as there are positions.
        let unit = a[a.len() - 1].iter().fold(1.0, |m: f64, x| m.max(*x));
        for (k, (a, b)) in a.iter().zip(b).enumerate() {
            let square = a.len() % (f * f) == 0 && k == 2;
            let largest = a.iter().fold(unit, |m: f64, x| m.max(x.abs()));
            for (at, (a, b)) in a.iter().zip(b).enumerate() {
                if !square || at / f % f <= at % f {
                    worst = worst.max((a - b).abs() / largest);
                }
            }
        }
        worst
    }

    /// Kernels, strides, paddings and dilations that differ by axis, a border wider than the image, taps that never lie in
    /// it, rows that no tap reads, groups.
    #[test]
    fn sums_by_offsets_are_those_of_the_patches() {
        tch::manual_seed(1);
        let windows = [
            ([3, 3], [1, 1], [1, 1], [1, 1]),
            ([3, 3], [2, 2], [1, 1], [1, 1]),
            ([3, 3], [1, 1], [0, 0], [1, 1]),
            ([1, 3], [1, 2], [0, 1], [1, 1]),
            ([5, 2], [3, 1], [2, 0], [1, 1]),
            ([3, 3], [1, 1], [2, 2], [2, 2]),
            ([3, 3], [2, 1], [3, 0], [3, 2]),
            ([2, 2], [3, 3], [0, 0], [1, 1]),
            ([1, 1], [2, 2], [0, 0], [1, 1]),
            ([3, 3], [1, 1], [8, 8], [8, 8]),
            ([3, 3], [1, 1], [5, 1], [1, 1]),
            ([4, 4], [4, 4], [0, 0], [1, 1]),
        ];
        for (kernel, stride, padding, dilation) in windows {
            for (channels, groups) in [([3, 2], 1), ([4, 6], 2), ([3, 3], 3)] {
                for (size, mean) in [([5, 7], 0.0), ([6, 6], 0.0), ([6, 5], 1000.0)] {
                    let window = Window { kernel, stride, padding, dilation, ceil_mode: false };
                    let node = conv(channels, groups, window);
                    let x = Tensor::randn([3, channels[0] as i64, size[0], size[1]], (Kind::Float, tch::Device::Cpu));
                    let [(expected, expected_cross), (found, found_cross)] =
                        both(std::slice::from_ref(&node), &[x + mean], mean);
                    let f = Design::of(&node.op).unwrap().n_inputs;
                    let off = apart(&expected, &found, f).max(apart(&expected_cross, &found_cross, f));
                    assert!(off < 2e-6, "{window:?}, {groups} groups, {size:?} about {mean}: {off}");
                }
            }
        }
    }

    /// Products of so many channels that each is made by itself.
    #[test]
    fn wide_sums_by_offsets_are_those_of_the_patches() {
        tch::manual_seed(4);
        let node = conv([130, 140], 1, Window::square(2, 1, 1));
        let x = Tensor::randn([3, 130, 12, 11], (Kind::Float, tch::Device::Cpu)) + 0.5;
        let [(expected, expected_cross), (found, found_cross)] = both(std::slice::from_ref(&node), &[x], 0.5);
        let off = apart(&expected, &found, 520).max(apart(&expected_cross, &found_cross, 520));
        assert!(off < 2e-6, "{off}");
    }

    /// A block's last convolution and its shortcut; both with strides, of other channels and sizes.
    #[test]
    fn layers_side_by_side_are_summed_up_by_offsets() {
        tch::manual_seed(2);
        let random = |size: [i64; 4]| Tensor::randn(size, (Kind::Float, tch::Device::Cpu)) + 0.5;
        let cases = [
            ([(4, 3, 1, 1), (2, 1, 2, 0)], [[3, 4, 5, 5], [3, 2, 10, 10]]),
            ([(3, 1, 1, 0), (3, 3, 1, 1)], [[3, 3, 4, 6], [3, 3, 4, 6]]),
            ([(2, 3, 2, 1), (5, 5, 2, 2)], [[3, 2, 7, 7], [3, 5, 8, 8]]),
        ];
        for (layers, sizes) in cases {
            let nodes = layers.map(|(channels, kernel, stride, padding)| {
                conv([channels, 4], 1, Window::square(kernel, stride, padding))
            });
            let [(expected, expected_cross), (found, found_cross)] = both(&nodes, &sizes.map(random), 0.5);
            let f = Design::of_all(&nodes).unwrap().n_inputs;
            let off = apart(&expected, &found, f).max(apart(&expected_cross, &found_cross, f));
            assert!(off < 2e-6, "{layers:?}: {off}");
        }
    }

    /// At some positions, the sums are those of all patches there: strides, groups, several layers, tokens, wide and narrow.
    #[test]
    fn sums_at_some_positions_are_those_of_the_samples_there() {
        tch::manual_seed(3);
        let random = |size: &[i64]| Tensor::randn(size, (Kind::Float, tch::Device::Cpu)) + 0.5;
        let side_by_side = [conv([3, 4], 1, Window::square(1, 1, 0)), conv([2, 4], 1, Window::square(3, 2, 1))];
        let linear = Node {
            op: Op::Linear { in_features: 6, out_features: 3, bias: true },
            ..conv([1, 1], 1, Window::square(1, 1, 0))
        };
        let cases: [(&[Node], Vec<Tensor>); 5] = [
            (&[conv([3, 4], 1, Window::square(3, 1, 1))], vec![random(&[5, 3, 8, 11])]),
            (&[conv([4, 6], 2, Window::square(3, 2, 1))], vec![random(&[5, 4, 16, 15])]),
            (&[conv([40, 4], 1, Window::square(3, 1, 1))], vec![random(&[5, 40, 9, 9])]),
            (&side_by_side, vec![random(&[5, 3, 8, 8]), random(&[5, 2, 16, 16])]),
            (&[linear], vec![random(&[5, 6, 33])]),
        ];
        for (nodes, read) in cases {
            let design = Design::of_all(nodes).unwrap();
            let y = match &nodes[0].op {
                Op::Linear { .. } => random(&[5, 3, 33]),
                op => Tensor::randn_like(&convolved(op, &read[0])),
            };
            let sizes: Vec<usize> = y.size()[2..].iter().map(|&n| n as usize).collect();
            let lattice = Positions::Enough { per_unknown: 1, in_all: 0 }.lattice(1_000_000, &sizes, design).unwrap();
            let images = 7..12;
            let sampled = Sampled::new(&lattice, &images);
            let at = |way, y: &Tensor| Samples {
                read: nodes.iter().zip(&read).map(|(n, x)| (n, x.shallow_clone())).collect(),
                y: y.shallow_clone(),
                way,
            };
            let rows = [0, 2, 3];
            let some = at(Way::Sampled(&sampled), &sampled.of(&y).unwrap());
            let origin = some.origin().unwrap();
            let found = some.products(&rows, &origin, 0).unwrap();
            let cross = some.cross(&rows, &origin[0], 0).unwrap();
            // All samples, of which those of the lattice are taken one by one.
            let (x, y) = at(Way::Patches, &y).spread_out(&[0, 1, 2, 3, 4]).unwrap();
            let positions: usize = sizes.iter().product();
            let chosen = rows.iter().flat_map(|&row| {
                let first = lattice.first(7 + row as usize);
                let columns = sizes.get(1).copied().unwrap_or(1);
                let along = |axis: usize| match (first.get(axis), sizes.get(axis)) {
                    (Some(&first), Some(&size)) => {
                        (first..size).step_by(lattice.step()).take(lattice.lengths()[axis]).collect()
                    }
                    _ => vec![0],
                };
                let of_row = along(1);
                along(0).into_iter().flat_map(move |r| {
                    of_row.clone().into_iter().map(move |c| (row as usize * positions + r * columns + c) as i64)
                })
            });
            let chosen = Tensor::from_slice(&chosen.collect::<Vec<i64>>());
            let pick = |t: &Tensor, from: &[f32]| {
                let from = Tensor::from_slice(from).reshape([t.size()[0], 1, -1]);
                (t.index_select(1, &chosen) - from).to_kind(Kind::Double)
            };
            let (x, y, r) = (pick(&x, &origin[0]), pick(&y, &origin[1]), pick(&y, &vec![0.0; origin[1].len()]));
            let sum = |t: Tensor| -> Vec<f64> {
                t.sum_dim_intlist(1, false, Kind::Double).flatten(0, -1).try_into().unwrap()
            };
            let product =
                |a: &Tensor, b: &Tensor| -> Vec<f64> { a.transpose(1, 2).matmul(b).flatten(0, -1).try_into().unwrap() };
            let expected =
                vec![sum(x.shallow_clone()), sum(y.shallow_clone()), product(&x, &x), product(&y, &x), sum(y.square())];
            let off = apart(&expected, &five(&found, design), design.n_inputs);
            assert!(off < 2e-6, "{nodes:?}: {off}");
            assert_eq!(found.count as i64, x.size()[1]);
            let expected = vec![sum(r.shallow_clone()), product(&r, &x), sum(r.square())];
            let off = apart(&expected, &cross.sums.into(), design.n_inputs);
            assert!(off < 2e-6, "{nodes:?}: {off}");
        }
    }

    /// Where patches are as cheap, they stay; and what is no convolution has none.
    #[test]
    fn the_cheaper_way_is_taken() {
        let plan = |node: &Node, size: usize| {
            let Op::Conv2d { in_channels, window, .. } = &node.op else { unreachable!() };
            Offsets::new(&[&node.op], &[[*in_channels, size, size]], window.output([size, size]).unwrap(), 1)
        };
        let of = |channels, groups, window, size| plan(&conv(channels, groups, window), size).is_some();
        assert!(of([16, 16], 1, Window::square(3, 1, 1), 32) && of([64, 64], 1, Window::square(3, 2, 1), 56));
        assert!(of([512, 512], 32, Window::square(3, 1, 1), 14) && of([256, 256], 1, Window::square(3, 2, 1), 28));
        assert!(!of([3, 64], 1, Window::square(7, 2, 3), 224) && !of([64, 64], 1, Window::square(1, 1, 0), 56));
        let linear = Op::Linear { in_features: 4, out_features: 4, bias: true };
        assert!(Offsets::new(&[&linear], &[[4, 1, 1]], [1, 1], 1).is_none());
    }
}
