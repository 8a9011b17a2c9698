//! The tables of a report, before it is known whether they become Markdown or HTML.

mod accuracy;
mod others;

pub use accuracy::accuracy;
pub use others::{candidates, merge_points, published, time};

use crate::numbers::{NOTHING, count, fixed, line, millions, percent};
use crate::results::Stat;
use serde::Serialize;

/// Rows under columns.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Table {
    /// What it shows.
    pub caption: String,
    /// The first one names the rows.
    pub columns: Vec<Column>,
    /// In order.
    pub rows: Vec<Row>,
}

/// What stands over a column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Column {
    /// What neighbouring columns have in common; empty where there is nothing.
    pub group: &'static str,
    /// Its heading.
    pub name: String,
    /// Whether most of its cells are one number each.
    pub is_number: bool,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// What the row is about.
    pub name: String,
    /// Whether it is the one to look at first.
    pub best: bool,
    /// Whether another kind of rows begins here.
    pub begins: bool,
    /// One per column after the first.
    pub cells: Vec<Cell>,
}

/// What a cell holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Cell {
    /// Words.
    Text {
        /// They.
        text: String,
    },
    /// One number.
    Number(Number),
    /// Several numbers with a word each.
    Numbers {
        /// They.
        numbers: Vec<(String, Number)>,
    },
    /// Nothing.
    Empty,
}

/// A number as it is printed and as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Number {
    /// Its first part: the mean.
    pub text: String,
    /// Its standard deviation as printed.
    pub spread: Option<String>,
    /// As `results.json` has it; `None` where it is no number.
    pub value: Option<String>,
    /// Its standard deviation likewise.
    pub std: Option<String>,
}

impl Table {
    fn new(caption: String, mut columns: Vec<Column>, rows: Vec<Row>) -> Self {
        for (i, column) in columns.iter_mut().enumerate().skip(1) {
            let cells = || rows.iter().map(|row| &row.cells[i - 1]).filter(|cell| **cell != Cell::Empty);
            column.is_number = 2 * cells().filter(|cell| matches!(cell, Cell::Number(_))).count() > cells().count();
        }
        Self { caption, columns, rows }
    }
}

impl Column {
    fn new(group: &'static str, name: impl Into<String>) -> Self {
        Self { group, name: name.into(), is_number: false }
    }

    fn all(names: &[&str]) -> Vec<Self> {
        names.iter().map(|name| Self::new("", *name)).collect()
    }
}

impl Row {
    fn new(name: &str, cells: Vec<Cell>) -> Self {
        Self { name: line(name), best: false, begins: false, cells }
    }
}

impl Number {
    fn new(text: String, value: f64) -> Self {
        Self { text, spread: None, value: value.is_finite().then(|| value.to_string()), std: None }
    }

    /// As Markdown has it.
    pub fn plain(&self) -> String {
        self.spread.as_ref().map_or_else(|| self.text.clone(), |spread| format!("{} ± {spread}", self.text))
    }
}

impl Cell {
    fn text(text: &str) -> Self {
        if text.is_empty() { Self::Empty } else { Self::Text { text: line(text) } }
    }

    fn yes(said: bool) -> Self {
        Self::text(if said { "yes" } else { "no" })
    }

    fn stat(stat: Option<&Stat>) -> Self {
        stat.map_or(Self::Empty, |stat| {
            let std = stat.std.filter(|std| std.is_finite() && stat.mean.is_finite());
            let number = Number::new(percent(stat.mean), stat.mean);
            Self::Number(Number { spread: std.map(percent), std: std.map(|std| std.to_string()), ..number })
        })
    }

    fn share(share: Option<f64>) -> Self {
        share.map_or(Self::Empty, |share| Self::Number(Number::new(percent(share), share)))
    }

    fn times(times: Option<f64>) -> Self {
        times.map_or(Self::Empty, |times| Self::Number(Number::new(fixed(times), times)))
    }

    fn millions(x: f64) -> Self {
        Self::Number(Number::new(millions(x), x))
    }

    fn count(n: usize) -> Self {
        Self::Number(Number::new(count(n as u64), n as f64))
    }

    /// As Markdown has it.
    pub fn plain(&self) -> String {
        match self {
            Self::Text { text } => text.clone(),
            Self::Number(number) => number.plain(),
            Self::Numbers { numbers } => {
                let parts: Vec<String> =
                    numbers.iter().map(|(word, number)| format!("{word} {}", number.plain())).collect();
                parts.join(", ")
            }
            Self::Empty => NOTHING.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numbers::percents;

    #[test]
    fn a_number_keeps_what_the_json_says() {
        let stat = Stat { mean: 0.955_412_345, std: Some(0.001_234_5), values: vec![] };
        let Cell::Number(number) = Cell::stat(Some(&stat)) else { panic!("a stat is a number") };
        assert_eq!(number.plain(), percents(&stat));
        assert_eq!((number.value.as_deref(), number.std.as_deref()), (Some("0.955412345"), Some("0.0012345")));
        let Cell::Number(nan) = Cell::share(Some(f64::NAN)) else { panic!("a share is a number") };
        assert_eq!((nan.plain().as_str(), nan.value), ("–", None));
        assert_eq!(Cell::stat(None).plain(), "–");
    }
}
