//! Where the time went.

use super::axis::Axis;
use super::bars::{Field, Name, Rows, stack};
use super::legend::Legend;
use super::palette::SERIES;
use super::paper::{SMALL, Side, ink, write};
use super::{Figure, Place};
use crate::error::Result;
use crate::numbers::{duration, of_them};
use crate::results::{Results, StageTime};

/// A bar per stage.
pub fn figure(results: &Results) -> Result<Option<Figure>> {
    let stages: Vec<&StageTime> = results.time.iter().filter(|s| s.seconds.is_finite() && s.seconds >= 0.0).collect();
    let longest = stages.iter().map(|stage| stage.seconds).fold(0.0, f64::max);
    let (unit, seconds) = match longest {
        0.0..=300.0 => ("seconds", 1.0),
        300.0..=18_000.0 => ("minutes", 60.0),
        _ => ("hours", 3600.0),
    };
    let lengths: Vec<f64> = stages.iter().map(|stage| stage.seconds / seconds).collect();
    let Some(x) = Axis::from_zero(unit, &lengths) else { return Ok(None) };
    let names: Vec<Name> = stages.iter().map(|stage| Name::Row(stage.stage.clone())).collect();
    let rows = Rows { x: &x, names: &names, right: 90, legend: &Legend::new([]) };
    let drawing = rows.draw(|sheet, field| {
        for (row, (stage, length)) in stages.iter().zip(&lengths).enumerate() {
            stack(sheet, field, row, &[(*length, SERIES[0])])?;
            let at = (field.x(*length) + 6, Field::y(row));
            write(sheet, &duration(stage.seconds), &ink(SMALL), Side::Right, at)?;
        }
        Ok(())
    })?;
    let spelled: Vec<String> = stages.iter().map(|s| format!("{} {}", s.stage, duration(s.seconds))).collect();
    let total = duration(stages.iter().map(|stage| stage.seconds).sum());
    let files = of_them(stages.iter().map(|stage| stage.n_files).sum(), "file", "files");
    let alt = format!("Time by stage, {total} in all for {files}: {}.", spelled.join(", "));
    Ok(Some(Figure::new(Place::Time, "time", "Where the time went", &alt, &drawing)))
}
