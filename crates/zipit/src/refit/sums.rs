//! What is measured of a layer's inputs and targets.

use super::design::Design;
use ndarray::{Array1, Array2, Axis};

/// Raw moments of a layer's input x and target y over images and positions, in f64, so that they add.
#[derive(Debug, Clone, PartialEq)]
pub struct Sums {
    /// The layer's shape.
    pub design: Design,
    pub(super) parts: Vec<Part>,
}

/// Outputs that share their inputs' moments: a group of the layer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Part {
    /// Which outputs of the layer, O of them.
    pub rows: Vec<usize>,
    /// Samples: images times positions.
    pub count: f64,
    /// x₀ `[F]` and y₀ `[O]`, which x and y are counted from in all the sums.
    pub origin: [Array1<f64>; 2],
    /// Σx, `[F]`.
    pub x: Array1<f64>,
    /// Σy, `[O]`.
    pub y: Array1<f64>,
    /// Σxxᵀ, `[F, F]`, the upper triangle.
    pub xx: Array2<f64>,
    /// Σyxᵀ, `[O, F]`.
    pub yx: Array2<f64>,
    /// Σy², `[O]`.
    pub yy: Array1<f64>,
}

impl Sums {
    /// Nothing measured yet.
    #[must_use]
    pub fn zeros(design: Design) -> Self {
        let o = design.n_outputs;
        let part = |g: usize| Part::zeros((g * o..(g + 1) * o).collect(), design.n_inputs);
        Self { design, parts: (0..design.n_groups).map(part).collect() }
    }

    /// Adds what `n` samples of every group sum up to, counted from an origin x₀ `[G, F]`, y₀ `[G, O]` that is the same for
    /// all samples: Σx `[G, F]`, Σy `[G, O]`, Σyxᵀ `[G, O, F]`, Σy² `[G, O]`, each in standard order. The same samples' Σxxᵀ is
    /// added by [`add_squares`](Self::add_squares).
    ///
    /// # Panics
    /// When a slice is of another length, or the origin another one than before.
    pub fn add<T: Copy + Into<f64>>(&mut self, n: u64, [x0, y0]: [&[f32]; 2], [x, y, yx, yy]: [&[T]; 4]) {
        let vector = |sum: &mut Array1<f64>, part: &[T]| {
            sum.iter_mut().zip(part).for_each(|(sum, &part)| *sum += part.into());
        };
        let Design { n_groups, n_inputs: f, n_outputs: o } = self.design;
        let lengths = [x, y, yx, yy].map(<[T]>::len);
        assert_eq!(lengths, [f, o, o * f, o].map(|n| n * n_groups), "sums of another layer");
        for (g, part) in self.parts.iter_mut().enumerate() {
            part.counted_from(
                [&x0[g * f..][..f], &y0[g * o..][..o]].map(|v| v.iter().map(|&v| f64::from(v)).collect()),
            );
            part.count += n as f64;
            vector(&mut part.x, &x[g * f..][..f]);
            vector(&mut part.y, &y[g * o..][..o]);
            vector(&mut part.yy, &yy[g * o..][..o]);
            part.yx.iter_mut().zip(&yx[g * o * f..][..o * f]).for_each(|(sum, &part)| *sum += part.into());
        }
    }

    /// Adds rows of a group's Σxxᵀ, from the `first` on, each from column `first` on: of the upper triangle, what is left of
    /// the diagonal does not count.
    ///
    /// # Panics
    /// When these are no rows of such a length, or more than there are.
    pub fn add_squares<T: Copy + Into<f64>>(&mut self, group: usize, first: usize, rows: &[T]) {
        let width = self.design.n_inputs - first;
        assert!(rows.len().is_multiple_of(width), "squares of another layer");
        let xx = &mut self.parts[group].xx;
        for (at, from) in rows.chunks_exact(width).enumerate() {
            let mut row = xx.row_mut(first + at);
            let row = &mut row.as_slice_mut().expect("standard layout")[first + at..];
            row.iter_mut().zip(&from[at..]).for_each(|(sum, &part)| *sum += part.into());
        }
    }

    /// Adds samples x `[n, F]` and y `[n, O]` of a layer with one group.
    ///
    /// # Panics
    /// When they are of another layer.
    pub fn add_samples(&mut self, x: &Array2<f64>, y: &Array2<f64>) {
        let Design { n_groups, n_inputs, n_outputs } = self.design;
        assert_eq!((n_groups, n_inputs, n_outputs), (1, x.ncols(), y.ncols()), "samples of another layer");
        let part = &mut self.parts[0];
        part.count += x.nrows() as f64;
        part.x += &x.sum_axis(Axis(0));
        part.y += &y.sum_axis(Axis(0));
        part.xx += &x.t().dot(x);
        part.yx += &y.t().dot(x);
        part.yy += &(y * y).sum_axis(Axis(0));
    }

    /// Adds what was measured on other images.
    ///
    /// # Panics
    /// When they are of another layer.
    pub fn merge(&mut self, other: &Self) {
        assert_eq!(self.design, other.design, "sums of another layer");
        for (sum, part) in self.parts.iter_mut().zip(&other.parts) {
            assert_eq!(sum.rows, part.rows, "sums of another layer");
            sum.add(part, 1.0);
        }
    }

    /// Adds a part's samples, each counted `weight` times. Parts have the same outputs or none in common: what differs
    /// is split off.
    pub(super) fn add_part(&mut self, part: &Part, weight: f64) {
        let mut rest = part.rows.clone();
        for at in 0..self.parts.len() {
            let (shared, others): (Vec<usize>, Vec<usize>) =
                self.parts[at].rows.iter().partition(|row| part.rows.contains(row));
            if shared.is_empty() {
                continue;
            }
            if !others.is_empty() {
                let split = self.parts[at].restricted(&others, None);
                self.parts.push(split);
                self.parts[at] = self.parts[at].restricted(&shared, None);
            }
            rest.retain(|row| !shared.contains(row));
            self.parts[at].add(&part.restricted(&shared, None), weight);
        }
        if !rest.is_empty() {
            let mut new = Part::zeros(rest.clone(), part.x.len());
            new.add(&part.restricted(&rest, None), weight);
            self.parts.push(new);
        }
    }

    /// Whether there are no samples.
    pub(super) fn is_empty(&self) -> bool {
        self.parts.iter().all(|part| part.count <= 0.0)
    }
}

impl Part {
    pub fn zeros(rows: Vec<usize>, n_inputs: usize) -> Self {
        let n_outputs = rows.len();
        Self {
            rows,
            count: 0.0,
            origin: [Array1::zeros(n_inputs), Array1::zeros(n_outputs)],
            x: Array1::zeros(n_inputs),
            y: Array1::zeros(n_outputs),
            xx: Array2::zeros((n_inputs, n_inputs)),
            yx: Array2::zeros((n_outputs, n_inputs)),
            yy: Array1::zeros(n_outputs),
        }
    }

    /// # Panics
    /// When there are samples that were counted from elsewhere.
    fn counted_from(&mut self, origin: [Array1<f64>; 2]) {
        assert!(self.count == 0.0 || self.origin == origin, "sums from another origin");
        self.origin = origin;
    }

    /// Some of its outputs, and some of its inputs.
    pub fn restricted(&self, rows: &[usize], inputs: Option<&Vec<usize>>) -> Self {
        let at: Vec<usize> =
            rows.iter().map(|row| self.rows.iter().position(|own| own == row).expect("one of its outputs")).collect();
        let yx = self.yx.select(Axis(0), &at);
        let [x0, y0] = &self.origin;
        let (x0, x, xx, yx) = match inputs {
            None => (x0.clone(), self.x.clone(), self.xx.clone(), yx),
            Some(inputs) => (
                x0.select(Axis(0), inputs),
                self.x.select(Axis(0), inputs),
                self.xx.select(Axis(0), inputs).select(Axis(1), inputs),
                yx.select(Axis(1), inputs),
            ),
        };
        let (y, yy) = (self.y.select(Axis(0), &at), self.yy.select(Axis(0), &at));
        let origin = [x0, y0.select(Axis(0), &at)];
        Self { rows: rows.to_vec(), count: self.count, origin, x, y, xx, yx, yy }
    }

    /// Adds another one's samples, each counted `weight` times.
    pub fn add(&mut self, other: &Self, weight: f64) {
        if other.count > 0.0 {
            self.counted_from(other.origin.clone());
        }
        self.count += weight * other.count;
        self.x.scaled_add(weight, &other.x);
        self.y.scaled_add(weight, &other.y);
        self.xx.scaled_add(weight, &other.xx);
        self.yx.scaled_add(weight, &other.yx);
        self.yy.scaled_add(weight, &other.yy);
    }
}
