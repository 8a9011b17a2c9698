//! Axes: what is drawn where, and the numbers along it.

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use std::ops::Range;

/// How an accuracy becomes a height.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scale {
    /// In %.
    Linear,
    /// By the logarithm of the errors that are left, at least so many of them: 90 to 95 % is then as far as 95 to 97.5 %.
    Errors(f64),
}

impl Scale {
    /// Where the errors differ by several times their smallest, what is near 100 % would else lie on one spot.
    pub fn of(shares: &[f64]) -> Self {
        let errors = || shares.iter().map(|share| 1.0 - share).filter(|error| *error > 1e-6);
        let (least, most) = (errors().fold(1.0, f64::min), errors().fold(0.0, f64::max));
        if most / least > 5.0 { Self::Errors(least / 2.0) } else { Self::Linear }
    }

    /// Where a share in 0…1 stands.
    pub fn at(self, share: f64) -> f64 {
        match self {
            Self::Linear => 100.0 * share,
            Self::Errors(least) => -(1.0 - share).clamp(least, 1.0).log10(),
        }
    }
}

/// An axis.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Axis {
    /// What it is of.
    pub title: String,
    /// Its ends.
    pub low: f64,
    /// Its ends.
    pub high: f64,
    /// Numbers along it, and where.
    pub ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From the least to the largest of the numbers, with a little room at both ends; `None` of none.
    pub fn linear(title: &str, numbers: &[f64]) -> Option<Self> {
        let (low, high) = with_room(numbers)?;
        Some(Self { title: title.to_owned(), low, high, ticks: round_numbers(low, high) })
    }

    /// From 0 to a little over the largest.
    pub fn from_zero(title: &str, numbers: &[f64]) -> Option<Self> {
        let (_, high) = with_room(numbers)?;
        let ticks = round_numbers(0.0, high.max(1e-9));
        Some(Self { title: title.to_owned(), low: 0.0, high: high.max(1e-9), ticks })
    }

    /// With a tick where there are numbers.
    pub fn at_numbers(title: &str, numbers: &[f64]) -> Option<Self> {
        let axis = Self::linear(title, numbers)?;
        let mut places: Vec<f64> = numbers.iter().copied().filter(|x| x.is_finite()).collect();
        places.sort_by(f64::total_cmp);
        places.dedup();
        if places.len() > 12 {
            return Some(axis);
        }
        Some(Self { ticks: places.into_iter().map(|x| (x, x.to_string())).collect(), ..axis })
    }

    /// Accuracies in %; the numbers are shares in 0…1.
    pub fn accuracy(title: &str, shares: &[f64]) -> Option<(Self, Scale)> {
        let finite: Vec<f64> = shares.iter().copied().filter(|share| share.is_finite()).collect();
        let scale = Scale::of(&finite);
        let places: Vec<f64> = finite.iter().map(|share| scale.at(*share)).collect();
        let (low, high) = with_room(&places)?;
        let ticks = match scale {
            Scale::Linear => round_numbers(low, high.min(100.0)),
            Scale::Errors(_) => round_accuracies(scale, low, high),
        };
        let title = match scale {
            Scale::Linear => format!("{title}, %"),
            Scale::Errors(_) => format!("{title}, % (logarithm of the error)"),
        };
        Some((Self { title, low, high, ticks }, scale))
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let share = (value - self.low) / (self.high - self.low);
        limit.0 + (share * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.iter().map(|(at, _)| *at).collect()
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        let tick = self.ticks.iter().find(|(at, _)| (at - value).abs() < 1e-9);
        tick.map_or_else(String::new, |(_, text)| text.clone())
    }
}

fn with_room(numbers: &[f64]) -> Option<(f64, f64)> {
    let finite = || numbers.iter().copied().filter(|x| x.is_finite());
    let (low, high) = (finite().reduce(f64::min)?, finite().reduce(f64::max)?);
    let room = if high > low { 0.05 * (high - low) } else { low.abs().max(1.0) * 0.1 };
    Some((low - room, high + room))
}

/// About eight multiples of 1, 2 or 5 times a power of ten.
fn round_numbers(low: f64, high: f64) -> Vec<(f64, String)> {
    let rough = (high - low) / 8.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|step| *step >= rough).unwrap_or(rough);
    let digits = (-step.log10().floor()).max(0.0) as usize;
    let (first, last) = ((low / step).ceil() as i64, (high / step).floor() as i64);
    (first..=last).map(|i| i as f64 * step).map(|x| (x, format!("{x:.digits$}"))).collect()
}

/// As many round accuracies as can be told apart, the roundest first.
fn round_accuracies(scale: Scale, low: f64, high: f64) -> Vec<(f64, String)> {
    const ROUND: [f64; 27] = [
        90.0, 50.0, 99.0, 80.0, 95.0, 70.0, 98.0, 99.5, 99.9, 0.0, 60.0, 97.0, 96.0, 85.0, 30.0, 40.0, 20.0, 10.0,
        92.0, 94.0, 93.0, 99.8, 99.7, 98.5, 97.5, 96.5, 95.5,
    ];
    let least = (high - low) / 17.0;
    let mut ticks: Vec<(f64, String)> = Vec::new();
    for accuracy in ROUND {
        let at = scale.at(accuracy / 100.0);
        let is_free = (low..=high).contains(&at) && ticks.iter().all(|(taken, _)| (taken - at).abs() >= least);
        if is_free {
            ticks.push((at, accuracy.to_string()));
        }
    }
    ticks.sort_by(|a, b| a.0.total_cmp(&b.0));
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, text)| text.as_str()).collect()
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(texts(&Axis::linear("", &[0.5, 1.65]).unwrap()), ["0.6", "0.8", "1.0", "1.2", "1.4", "1.6"]);
        assert_eq!(texts(&Axis::from_zero("", &[5124.0]).unwrap()), ["0", "1000", "2000", "3000", "4000", "5000"]);
        assert_eq!(texts(&Axis::at_numbers("", &[2.0, 3.0, 2.0, 0.5]).unwrap()), ["0.5", "2", "3"]);
        assert_eq!(Axis::linear("", &[f64::NAN]), None);
        assert!(Axis::linear("", &[3.0]).unwrap().low < 3.0);
    }

    #[test]
    fn accuracies_spread_by_their_errors_where_they_must() {
        let (axis, scale) = Axis::accuracy("task average", &[0.34, 0.6, 0.955, 0.97]).unwrap();
        assert!(matches!(scale, Scale::Errors(_)) && axis.title.contains("logarithm"));
        assert!(texts(&axis).starts_with(&["50"]) || texts(&axis).contains(&"50"), "{axis:?}");
        assert!(scale.at(0.97) - scale.at(0.955) > 0.1);
        let (axis, scale) = Axis::accuracy("task average", &[0.6, 0.72]).unwrap();
        assert_eq!((scale, axis.title.as_str()), (Scale::Linear, "task average, %"));
        // Without a single error there is still a place for it.
        assert!(Scale::of(&[0.5, 0.95, 1.0]).at(1.0).is_finite());
    }
}
