//! What a convolution's patches sum up to, without the patches.
//!
//! With `z_δ(i) = x(i·s + δ·d − p)` what tap δ of a convolution reads at position i, the block of two taps in Σ zzᵀ is
//! `Σᵢ z_δ(i)·z_δ'(i)ᵀ`: the correlation of the image with itself at the offset between them, less its terms at positions
//! that are none. So a 3×3 convolution of stride 1 takes 13 products of C×C instead of the 81 blocks of its patches', of
//! which 45 are needed, and a few strips along the border; strides take as many images as they have phases. Layers that
//! are solved as one have taps on several inputs.
//!
//! Inputs are counted from one number x₀ per channel, so that the border's zeros are −x₀: what that adds to the sums is
//! made of the sums over images at every position.

use super::running::{Running, SAMPLES};
use crate::Result;
use crate::convert::numbers;
use std::collections::BTreeMap;
use std::ops::Range;
use tch::{Device, Kind, Tensor};
use zipit::graph::Op;

/// Numbers that sums of [`SAMPLES`] may take before they are added, where many are made in one call.
const NUMBERS: i64 = 1 << 18;
/// Of products of so many numbers each is made by itself.
const WIDE: i64 = 1 << 14;
// What sums cost, in multiply-adds, so that the cheaper way was never more than a tenth slower on twenty layers of known
// networks (`make bench` has some of them).
/// A product of matrices, beside its own, per image.
const CALL: f64 = 4096.0;
/// A number of a patch, beside the products with it.
const COPY: f64 = 96.0;
/// Products of matrices so narrow cost twice as much.
const NARROW: f64 = 8.0;

/// One input's own part of the plan.
#[derive(Debug, Clone, Copy)]
struct Read {
    stride: [usize; 2],
    /// Channels of a group.
    channels: usize,
    /// The first of its unknowns.
    first: usize,
    n_taps: usize,
}

/// Every s-th row and column of an input.
#[derive(Debug, Clone, Copy)]
struct Plane {
    input: usize,
    phase: [usize; 2],
    /// Rows and columns that some tap reads.
    extent: [i64; 2],
}

/// What one tap reads: a plane at position i + at.
#[derive(Debug, Clone, Copy)]
struct Tap {
    plane: usize,
    at: [i64; 2],
    /// The first of its unknowns.
    first: usize,
}

/// Σ over positions t of a plane, all or some, times the other one's position t + offset.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Product {
    planes: [usize; 2],
    offset: [i64; 2],
    /// Rows and columns; `None` for all of the image.
    part: Option<[(i64, i64); 2]>,
}

/// `Σ z_δ z_δ'ᵀ` of two taps.
#[derive(Debug, Clone)]
struct Pair {
    taps: [usize; 2],
    /// Products and their signs.
    terms: Vec<(usize, f64)>,
    /// Whether they are of δ' and δ.
    transposed: bool,
}

/// How the sums over a layer's patches are taken, or over those of layers that are solved as one.
#[derive(Debug, Clone)]
pub struct Offsets {
    groups: usize,
    outputs: usize,
    /// F.
    unknowns: usize,
    reads: Vec<Read>,
    planes: Vec<Plane>,
    taps: Vec<Tap>,
    products: Vec<Product>,
    pairs: Vec<Pair>,
    /// Positions of the output.
    out: [usize; 2],
    /// Positions of every plane, with zeros to the right and below so that no offset leads into another row or image.
    grid: [i64; 2],
    /// Zeros before and after all, so that no offset leads out.
    margin: i64,
}

impl Offsets {
    /// Of convolutions that read values of these shapes and write one of H'×W'. `None` for other ops, and where patches
    /// at every `step`-th position are cheaper.
    #[must_use]
    pub fn new(ops: &[&Op], read: &[[usize; 3]], out: [usize; 2], step: usize) -> Option<Self> {
        let plan = Self::of(ops, read, out)?;
        // With one tap, what is read is what is summed.
        let several = plan.reads.iter().any(|read| read.n_taps > 1);
        (several && plan.cost() < plan.cost_of_patches(step)).then_some(plan)
    }

    /// The same whatever it costs.
    #[must_use]
    pub fn of(ops: &[&Op], read: &[[usize; 3]], out: [usize; 2]) -> Option<Self> {
        let (mut reads, mut planes, mut taps) = (vec![], Vec::<Plane>::new(), vec![]);
        let (mut unknowns, mut groups_and_outputs) = (0, None);
        for (input, (op, &[n_channels, height, width])) in ops.iter().zip(read).enumerate() {
            let &Op::Conv2d { in_channels, out_channels, window, groups, .. } = *op else { return None };
            let fits =
                *groups_and_outputs.get_or_insert((groups, out_channels / groups)) == (groups, out_channels / groups);
            if !fits || n_channels != in_channels || (groups > 1 && ops.len() > 1) {
                return None;
            }
            let channels = in_channels / groups;
            let [rows, columns] = [(0, height), (1, width)].map(|(axis, size)| {
                let place = |tap: usize| {
                    let from = (tap * window.dilation[axis]) as i64 - window.padding[axis] as i64;
                    let stride = window.stride[axis] as i64;
                    (from.rem_euclid(stride) as usize, from.div_euclid(stride))
                };
                let places: Vec<(usize, i64)> = (0..window.kernel[axis]).map(place).collect();
                let read_until = |phase: usize| {
                    let last = places.iter().filter(|(own, _)| *own == phase).map(|(_, at)| *at).max().unwrap_or(0);
                    let there = size.saturating_sub(phase).div_ceil(window.stride[axis]) as i64;
                    there.min(out[axis] as i64 + last).max(0)
                };
                places.iter().map(|&(phase, at)| (phase, at, read_until(phase))).collect::<Vec<_>>()
            });
            reads.push(Read { stride: window.stride, channels, first: unknowns, n_taps: rows.len() * columns.len() });
            for &(phase_h, at_h, extent_h) in &rows {
                for &(phase_w, at_w, extent_w) in &columns {
                    let plane = Plane { input, phase: [phase_h, phase_w], extent: [extent_h, extent_w] };
                    let known = planes.iter().position(|p| p.input == input && p.phase == plane.phase);
                    let plane = known.unwrap_or_else(|| {
                        planes.push(plane);
                        planes.len() - 1
                    });
                    taps.push(Tap { plane, at: [at_h, at_w], first: unknowns });
                    unknowns += channels;
                }
            }
        }
        let (groups, outputs) = groups_and_outputs?;
        let grid = [0, 1].map(|axis| {
            let at = |pick: fn(i64, i64) -> i64| taps.iter().map(|tap| tap.at[axis]).reduce(pick).unwrap_or(0);
            let (first, last) = (at(i64::min), at(i64::max));
            let extent = planes.iter().map(|plane| plane.extent[axis]).max().unwrap_or(0);
            (extent.max(out[axis] as i64 + last) + (-first).max(0)).max(extent + last - first)
        });
        let mut plan = Self {
            groups,
            outputs,
            unknowns,
            reads,
            planes,
            taps,
            products: vec![],
            pairs: vec![],
            out,
            grid,
            margin: 0,
        };
        plan.pair();
        let offsets = plan.products.iter().map(|product| product.offset).chain(plan.taps.iter().map(|tap| tap.at));
        plan.margin = offsets.map(|offset| plan.flat(offset).abs()).max().unwrap_or(0);
        Some(plan)
    }

    /// Which products each pair of taps is made of.
    fn pair(&mut self) {
        let mut known: BTreeMap<Product, usize> = BTreeMap::new();
        let mut product = |product: Product| {
            let next = known.len();
            *known.entry(product).or_insert(next)
        };
        for (i, &one) in self.taps.iter().enumerate() {
            for (j, &two) in self.taps.iter().enumerate().skip(i) {
                let between = [0, 1].map(|axis| two.at[axis] - one.at[axis]);
                let transposed = (one.plane, [0, 0]) > (two.plane, between);
                let (a, b) = if transposed { (two, one) } else { (one, two) };
                let offset = if transposed { between.map(|x| -x) } else { between };
                let planes = [a.plane, b.plane];
                let [from, to] = planes.map(|plane| self.planes[plane].extent);
                // Where both lie in the image, and where the output is.
                let all = [0, 1].map(|x| (0.max(-offset[x]), from[x].min(to[x] - offset[x])));
                let valid = [0, 1].map(|x| (all[x].0.max(a.at[x]), all[x].1.min(a.at[x] + self.out[x] as i64)));
                let mut terms = vec![];
                if valid.iter().all(|(low, high)| low < high) {
                    let gaps = [0, 1].map(|x| {
                        let gaps = [(all[x].0, valid[x].0), (valid[x].1, all[x].1)];
                        gaps.into_iter().filter(|(low, high)| low < high).collect::<Vec<_>>()
                    });
                    let mut add = |part, sign| terms.push((product(Product { planes, offset, part }), sign));
                    add(None, 1.0);
                    gaps[0].iter().for_each(|&rows| add(Some([rows, all[1]]), -1.0));
                    gaps[1].iter().for_each(|&columns| add(Some([all[0], columns]), -1.0));
                    for &rows in &gaps[0] {
                        gaps[1].iter().for_each(|&columns| add(Some([rows, columns]), 1.0));
                    }
                }
                self.pairs.push(Pair { taps: [i, j], terms, transposed });
            }
        }
        let mut products: Vec<(Product, usize)> = known.into_iter().collect();
        products.sort_by_key(|(_, at)| *at);
        self.products = products.into_iter().map(|(product, _)| product).collect();
    }

    fn flat(&self, offset: [i64; 2]) -> i64 {
        offset[0] * self.grid[1] + offset[1]
    }

    /// Channels of a plane's group.
    fn width(&self, plane: usize) -> usize {
        self.reads[self.planes[plane].input].channels
    }

    /// Multiply-adds per image, about.
    fn cost(&self) -> f64 {
        let of = |positions: i64, a: usize, b: usize| {
            let [a, b] = [a, b].map(|x| x as f64);
            CALL + (self.groups as f64) * positions as f64 * a * b * (1.0 + NARROW / a.min(b))
        };
        let whole = self.grid[0] * self.grid[1];
        let products = self.products.iter().map(|product| {
            let area = |[rows, columns]: [(i64, i64); 2]| (rows.1 - rows.0) * (columns.1 - columns.0);
            of(product.part.map_or(whole, area), self.width(product.planes[0]), self.width(product.planes[1]))
        });
        let taps = self.taps.iter().map(|tap| of(whole, self.outputs, self.width(tap.plane)));
        products.chain(taps).sum()
    }

    fn cost_of_patches(&self, step: usize) -> f64 {
        let f = self.unknowns as f64;
        let positions = (self.groups * (self.out[0] / step) * (self.out[1] / step)) as f64;
        CALL + positions * f * (f / 2.0 + self.outputs as f64 + COPY)
    }

    /// What sums are counted from: x₀ `[G, F]`, the means of the channels, and y₀ `[G, O]`.
    ///
    /// # Errors
    /// Tensors of other shapes.
    pub fn origin(&self, read: &[Tensor], y: &Tensor) -> Result<[Vec<f32>; 2]> {
        let means =
            |x: &Tensor| numbers(&x.f_mean_dim(&[0, 2, 3][..], false, Kind::Float)?.f_nan_to_num(0.0, 0.0, 0.0)?);
        let mut origin = vec![0.0; self.groups * self.unknowns];
        for (read, x) in self.reads.iter().zip(read) {
            let means = means(x)?;
            for g in 0..self.groups {
                let own = &means[g * read.channels..][..read.channels];
                for tap in 0..read.n_taps {
                    origin[g * self.unknowns + read.first + tap * read.channels..][..read.channels]
                        .copy_from_slice(own);
                }
            }
        }
        Ok([origin, means(y)?])
    }

    /// Sums of one batch: of every product, of every plane's positions, of y `[B, G·O, H', W']` with every tap, of y's
    /// positions and of y².
    ///
    /// # Errors
    /// Tensors of other shapes.
    pub fn sums(&self, read: &[Tensor], y: &Tensor, [x0, y0]: [&[f32]; 2]) -> Result<Vec<Vec<f32>>> {
        let y0 = Tensor::f_from_slice(y0)?.f_to_device(y.device())?;
        let planes = self.planes(read, x0)?;
        let mut sums = self.correlated(&planes)?;
        for plane in &planes {
            sums.push(self.over_images(plane)?);
        }
        sums.extend(self.with_taps(&planes, y, Some(&y0))?);
        sums.iter().map(numbers).collect()
    }

    /// The same of y alone, which is counted from nothing.
    ///
    /// # Errors
    /// Tensors of other shapes.
    pub fn cross(&self, read: &[Tensor], y: &Tensor, x0: &[f32]) -> Result<Vec<Vec<f64>>> {
        self.with_taps(&self.planes(read, x0)?, y, None)?.iter().map(numbers).collect()
    }

    /// Sums over `n` positions as [`Sums::add`](zipit::refit::Sums::add) takes them.
    #[must_use]
    pub fn spread_out(&self, sums: &[Vec<f64>], n: f64, x0: &[f32]) -> [Vec<f64>; 5] {
        let (products, rest) = sums.split_at(self.products.len());
        let (over_images, rest) = rest.split_at(self.planes.len());
        let images = n / (self.out[0] * self.out[1]) as f64;
        let (g, f) = (self.groups, self.unknowns);
        let over_images: Vec<Areas> =
            over_images.iter().map(|sums| Areas::of(self.grid.map(|n| n as usize), sums)).collect();
        let [mut x, mut xx] = [vec![0.0; g * f], vec![0.0; g * f * f]];
        let inside: Vec<[Range<i64>; 2]> = self.taps.iter().map(|tap| self.inside(tap)).collect();
        let count = |area: &[Range<i64>; 2]| images * length(&area[0]) * length(&area[1]);
        // Of what a tap reads, over some of the output's positions, [G·c].
        let total = |tap: usize, area: &[Range<i64>; 2]| {
            let Tap { plane, at, .. } = self.taps[tap];
            over_images[plane].total([0, 1].map(|axis| area[axis].start + at[axis]..area[axis].end + at[axis]))
        };
        let whole: Vec<Vec<f64>> = (0..self.taps.len()).map(|tap| total(tap, &inside[tap])).collect();
        for pair in &self.pairs {
            let [i, j] = pair.taps;
            let [a, b] = [i, j].map(|tap| self.width(self.taps[tap].plane));
            let block = pair.block(products, g, [a, b]);
            let both: [Range<i64>; 2] = [0, 1].map(|axis| {
                let [one, two] = [&inside[i][axis], &inside[j][axis]];
                let start = one.start.max(two.start);
                start..one.end.min(two.end).max(start)
            });
            // Where the other tap lies outside.
            let beside = |tap: usize| -> Vec<f64> {
                total(tap, &both).iter().zip(&whole[tap]).map(|(both, whole)| whole - both).collect()
            };
            let [of_i, of_j] = [i, j].map(beside);
            let both_out = images * self.n_positions() - count(&inside[i]) - count(&inside[j]) + count(&both);
            for group in 0..g {
                let [x0_i, x0_j] = [i, j].map(|tap| &x0[group * f + self.taps[tap].first..]);
                for row in 0..a {
                    let from_i = f64::from(x0_i[row]);
                    let to = &mut xx[group * f * f + (self.taps[i].first + row) * f + self.taps[j].first..][..b];
                    for (column, to) in to.iter_mut().enumerate() {
                        let from_j = f64::from(x0_j[column]);
                        *to = block[(group * a + row) * b + column]
                            - of_i[group * a + row] * from_j
                            - from_i * of_j[group * b + column]
                            + both_out * from_i * from_j;
                    }
                }
            }
        }
        for ((tap, whole), inside) in self.taps.iter().zip(&whole).zip(&inside) {
            let width = self.width(tap.plane);
            let outside = images * self.n_positions() - count(inside);
            for (at, sum) in whole.iter().enumerate() {
                let unknown = at / width * f + tap.first + at % width;
                x[unknown] = sum - outside * f64::from(x0[unknown]);
            }
        }
        let [y, yx, yy] = self.cross_spread_out(rest, x0);
        [x, y, xx, yx, yy]
    }

    /// Sums of [`cross`](Self::cross) as [`Residuals::add`](zipit::refit::Residuals::add) takes them.
    #[must_use]
    pub fn cross_spread_out(&self, sums: &[Vec<f64>], x0: &[f32]) -> [Vec<f64>; 3] {
        let (g, f, o) = (self.groups, self.unknowns, self.outputs);
        let (taps, y) = sums.split_at(self.taps.len());
        let areas = Areas::of(self.out, &y[0]);
        let all = areas.total(self.out.map(|n| 0..n as i64));
        let mut yx = vec![0.0; g * o * f];
        for (tap, sums) in self.taps.iter().zip(taps) {
            let width = self.width(tap.plane);
            let inside = areas.total(self.inside(tap));
            for (row, sums) in sums.chunks_exact(width).enumerate() {
                let x0 = &x0[row / o * f + tap.first..];
                let outside = all[row] - inside[row];
                let to = &mut yx[row * f + tap.first..][..width];
                for ((to, sum), x0) in to.iter_mut().zip(sums).zip(x0) {
                    *to = sum - outside * f64::from(*x0);
                }
            }
        }
        [all, yx, y[1].clone()]
    }

    fn n_positions(&self) -> f64 {
        (self.out[0] * self.out[1]) as f64
    }

    /// The output's rows and columns at which a tap lies in the image.
    fn inside(&self, tap: &Tap) -> [Range<i64>; 2] {
        [0, 1].map(|axis| {
            let start = (-tap.at[axis]).max(0).min(self.out[axis] as i64);
            start..(self.planes[tap.plane].extent[axis] - tap.at[axis]).clamp(start, self.out[axis] as i64)
        })
    }

    /// Every plane, `[margin + B·grid + margin, G·c]`.
    fn planes(&self, read: &[Tensor], x0: &[f32]) -> Result<Vec<Tensor>> {
        let origins = self.reads.iter().zip(read).map(|(read, x)| {
            let own = (0..self.groups).flat_map(|g| &x0[g * self.unknowns + read.first..][..read.channels]);
            Ok(Tensor::f_from_slice(&own.copied().collect::<Vec<f32>>())?.f_to_device(x.device())?)
        });
        let origins = origins.collect::<Result<Vec<_>>>()?;
        let plane = |plane: &Plane| -> Result<Tensor> {
            let (x, stride) = (&read[plane.input], self.reads[plane.input].stride);
            let (all, mut to) = self.blank(x.size()[0], x.size()[1], x.device())?;
            let mut own = x.f_permute([0, 2, 3, 1])?;
            for ((dim, extent), (from, step)) in (1..).zip(plane.extent).zip(plane.phase.into_iter().zip(stride)) {
                let [from, step] = [from, step].map(|n| n as i64);
                let until = from + (extent - 1).max(0) * step + i64::from(extent > 0);
                own = own.f_slice(dim, from.min(own.size()[dim as usize]), until, step)?;
                to = to.f_narrow(dim, 0, extent)?;
            }
            let _ = own.f_sub_out(&to, &origins[plane.input])?;
            Ok(all)
        };
        self.planes.iter().map(plane).collect()
    }

    /// Zeros, and where in them the images are, `[B, rows, columns, n]`.
    fn blank(&self, images: i64, n: i64, device: Device) -> Result<(Tensor, Tensor)> {
        let [rows, columns] = self.grid;
        let positions = images * rows * columns;
        let all = Tensor::f_zeros([2 * self.margin + positions, n], (Kind::Float, device))?;
        let image = all.f_narrow(0, self.margin, positions)?.f_view([images, rows, columns, n])?;
        Ok((all, image))
    }

    /// The images in a plane, `[B, rows, columns, n]`.
    fn images(&self, plane: &Tensor) -> Result<Tensor> {
        let [rows, columns] = self.grid;
        let [all, n] = plane.size()[..] else { unreachable!("a plane") };
        Ok(plane.f_narrow(0, self.margin, all - 2 * self.margin)?.f_view([-1, rows, columns, n])?)
    }

    /// A plane's sums over images, `[rows, columns, n]`.
    fn over_images(&self, plane: &Tensor) -> Result<Tensor> {
        Ok(self.images(plane)?.f_sum_dim_intlist(0, false, Kind::Float)?)
    }

    /// Every product, `[G, a, b]`.
    fn correlated(&self, planes: &[Tensor]) -> Result<Vec<Tensor>> {
        let of_image = |plane: usize, part: [(i64, i64); 2], offset: [i64; 2]| -> Result<Tensor> {
            let mut image = self.images(&planes[plane])?;
            for (axis, (low, high)) in part.into_iter().enumerate() {
                image = image.f_narrow(axis as i64 + 1, low + offset[axis], high - low)?;
            }
            Ok(image.f_reshape([-1, image.size()[3]])?)
        };
        let mut sums: Vec<Option<Tensor>> = Vec::with_capacity(self.products.len());
        let mut whole = vec![];
        for product in &self.products {
            let [a, b] = product.planes;
            sums.push(match product.part {
                None => {
                    whole.push((&planes[a], &planes[b], self.flat(product.offset)));
                    None
                }
                Some(part) => {
                    let (a, b) = (of_image(a, part, [0, 0])?, of_image(b, part, product.offset)?);
                    self.summed(&[(&a, &b, 0)], 0..a.size()[0])?.pop()
                }
            });
        }
        let mut whole = self.summed(&whole, self.margin..planes[0].size()[0] - self.margin)?.into_iter();
        Ok(sums.into_iter().filter_map(|sum| sum.or_else(|| whole.next())).collect())
    }

    /// y − y₀ with every tap, `[G, O, c]`; its sums over images, `[H', W', G·O]`; Σ(y − y₀)², `[G·O]`.
    fn with_taps(&self, planes: &[Tensor], y: &Tensor, y0: Option<&Tensor>) -> Result<Vec<Tensor>> {
        let y = y.f_permute([0, 2, 3, 1])?;
        let [images, height, width, n] = y.size()[..] else { unreachable!("a convolution's output") };
        let (all, image) = self.blank(images, n, y.device())?;
        let mut own = image.f_narrow(1, 0, height)?.f_narrow(2, 0, width)?;
        match y0 {
            Some(y0) => drop(y.f_sub_out(&own, y0)?),
            None => own.f_copy_(&y)?,
        }
        let with: Vec<_> = self.taps.iter().map(|tap| (&all, &planes[tap.plane], self.flat(tap.at))).collect();
        let mut sums = self.summed(&with, self.margin..all.size()[0] - self.margin)?;
        sums.push(own.f_sum_dim_intlist(0, false, Kind::Float)?);
        let squares = own.f_square()?.f_sum_dim_intlist(&[0, 2][..], false, Kind::Float)?;
        sums.push(squares.f_sum_dim_intlist(0, false, Kind::Double)?);
        Ok(sums)
    }

    /// Σ over rows n of a(n)·b(n + offset)ᵀ, `[G, a, b]`, in f32 or f64.
    fn summed(&self, of: &[(&Tensor, &Tensor, i64)], rows: Range<i64>) -> Result<Vec<Tensor>> {
        let g = self.groups as i64;
        let sum = |&(a, b, offset): &(&Tensor, &Tensor, i64)| {
            let size = [g, a.size()[1] / g, b.size()[1] / g];
            if g == 1 && size[1] * size[2] >= WIDE {
                let mut sum = Running::zeros(size[1], size[2], a.device())?;
                let n = rows.end - rows.start;
                sum.add(&a.f_narrow(0, rows.start, n)?, &b.f_narrow(0, rows.start + offset, n)?)?;
                return Ok(sum.sum()?.f_unsqueeze(0)?);
            }
            let mut sum = Tensor::f_zeros(size, (Kind::Double, a.device()))?;
            // Narrow products cost their calls: many are made in one.
            let at_once = if g == 1 { SAMPLES * (NUMBERS / (size[1] * size[2])).max(1) } else { SAMPLES };
            let mut from = rows.start;
            while from < rows.end {
                let left = rows.end - from;
                let n = if left < SAMPLES { left } else { at_once.min(left / SAMPLES * SAMPLES) };
                let (a, b) = (a.f_narrow(0, from, n)?, b.f_narrow(0, from + offset, n)?);
                let _ = sum.f_add_(&if g == 1 {
                    let parts = |x: Tensor, c: i64| x.f_view([-1, SAMPLES.min(n), c]);
                    let products = parts(a, size[1])?.f_transpose(1, 2)?.f_bmm(&parts(b, size[2])?)?;
                    products.f_sum_dim_intlist(0, false, Kind::Float)?
                } else {
                    let split = |x: Tensor| x.f_unflatten(1, [g, -1]);
                    split(a)?.f_permute([1, 2, 0])?.f_bmm(&split(b)?.f_transpose(0, 1)?)?
                })?;
                from += n;
            }
            Ok(sum)
        };
        of.iter().map(sum).collect()
    }
}

impl Pair {
    /// Its products with their signs, `[G, a, b]`.
    fn block(&self, products: &[Vec<f64>], g: usize, [a, b]: [usize; 2]) -> Vec<f64> {
        let mut block = vec![0.0; g * a * b];
        for &(product, sign) in &self.terms {
            block.iter_mut().zip(&products[product]).for_each(|(sum, part)| *sum += sign * part);
        }
        if !self.transposed {
            return block;
        }
        let turned = |at: usize| {
            let (group, row, column) = (at / (a * b), at / b % a, at % b);
            block[group * a * b + column * a + row]
        };
        (0..block.len()).map(turned).collect()
    }
}

/// Sums over rectangles of an image.
struct Areas {
    columns: usize,
    n: usize,
    /// Of all rows above and all columns to the left, `[rows + 1, columns + 1, n]`.
    sums: Vec<f64>,
}

impl Areas {
    /// Of `[rows, columns, n]`.
    fn of([rows, columns]: [usize; 2], values: &[f64]) -> Self {
        let n = values.len() / (rows * columns).max(1);
        let at = |row: usize, column: usize| (row * (columns + 1) + column) * n;
        let mut sums = vec![0.0; (rows + 1) * (columns + 1) * n];
        for row in 0..rows {
            for column in 0..columns {
                for k in 0..n {
                    let [above, left, corner] =
                        [at(row, column + 1), at(row + 1, column), at(row, column)].map(|at| sums[at + k]);
                    sums[at(row + 1, column + 1) + k] =
                        values[(row * columns + column) * n + k] + (above - corner) + left;
                }
            }
        }
        Self { columns, n, sums }
    }

    /// Over some rows and columns, `[n]`.
    fn total(&self, [rows, columns]: [Range<i64>; 2]) -> Vec<f64> {
        if rows.is_empty() || columns.is_empty() {
            return vec![0.0; self.n];
        }
        let at = |row: i64, column: i64| {
            let from = (row as usize * (self.columns + 1) + column as usize) * self.n;
            &self.sums[from..from + self.n]
        };
        let [all, above] = [at(rows.end, columns.end), at(rows.start, columns.end)];
        let [left, corner] = [at(rows.end, columns.start), at(rows.start, columns.start)];
        (0..self.n).map(|k| (all[k] - above[k]) - (left[k] - corner[k])).collect()
    }
}

fn length(range: &Range<i64>) -> f64 {
    (range.end - range.start) as f64
}
