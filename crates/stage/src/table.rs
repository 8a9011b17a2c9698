//! Results as a table for people, and as JSON, CSV or Markdown for programs.

use clap::ValueEnum;
use comfy_table::TableStyle;
use comfy_table::presets::{ASCII_MARKDOWN, NOTHING};
use serde::Serialize;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// Aligned columns.
    #[default]
    Table,
    /// The whole report.
    Json,
    /// One line a row.
    Csv,
    /// A Markdown table.
    Md,
}

/// Rows of text under headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    headers: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new<T: Into<String>>(headers: impl IntoIterator<Item = T>) -> Self {
        Self { headers: headers.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    ///
    /// # Panics
    /// When it has not one cell per header.
    pub fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        let cells: Vec<String> = cells.into_iter().map(Into::into).collect();
        assert_eq!(cells.len(), self.headers.len(), "a row has one cell per header");
        self.rows.push(cells);
    }

    /// Aligned columns.
    #[must_use]
    pub fn to_text(&self) -> String {
        self.draw(NOTHING)
    }

    /// The table in `format`; `report` is what JSON shows.
    ///
    /// # Errors
    /// When `report` cannot be serialised.
    pub fn render(&self, format: Format, report: &impl Serialize) -> anyhow::Result<String> {
        Ok(match format {
            Format::Table => self.to_text(),
            Format::Md => self.draw(ASCII_MARKDOWN),
            Format::Json => serde_json::to_string_pretty(report)? + "\n",
            Format::Csv => {
                let mut csv = csv::Writer::from_writer(Vec::new());
                csv.write_record(&self.headers)?;
                for row in &self.rows {
                    csv.write_record(row)?;
                }
                String::from_utf8(csv.into_inner().map_err(csv::IntoInnerError::into_error)?)?
            }
        })
    }

    fn draw(&self, style: TableStyle) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(style).set_header(&self.headers).add_rows(&self.rows);
        // A cell that holds a number is read from its last digit.
        for (i, column) in table.column_iter_mut().enumerate() {
            let numbers = self.rows.iter().filter(|row| row[i].starts_with(|c: char| c.is_ascii_digit())).count();
            if 2 * numbers > self.rows.len() {
                column.set_cell_alignment(comfy_table::CellAlignment::Right);
            }
        }
        table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(["model", "accuracy"]);
        table.row(["a, b", "95.1"]);
        table
    }

    #[test]
    fn csv_quotes_what_needs_it() {
        assert_eq!(table().render(Format::Csv, &()).unwrap(), "model,accuracy\n\"a, b\",95.1\n");
    }

    #[test]
    fn markdown_is_a_table() {
        let text = table().render(Format::Md, &()).unwrap();
        assert!(text.lines().all(|line| line.starts_with('|') && line.ends_with('|')), "{text}");
        assert_eq!(text.lines().count(), 3);
    }

    #[test]
    fn json_is_the_report() {
        assert_eq!(table().render(Format::Json, &[1, 2]).unwrap(), "[\n  1,\n  2\n]\n");
    }
}
