//! The tables beside the accuracies.

use super::{Cell, Column, Number, Row, Table};
use crate::numbers::{duration, line, of_them};
use crate::results::{ChoiceResult, PublishedRow, Results, Shown};

/// Figures of others, which are never mixed with ours.
pub fn published(rows: &[PublishedRow]) -> Table {
    let rows = rows.iter().map(|row| {
        let words = [&row.source, &row.setting].map(|text| Cell::text(text));
        let numbers = [Cell::share(row.task_avg), Cell::share(row.joint), Cell::times(row.relative_macs)];
        Row::new(&row.model, words.into_iter().chain(numbers).collect())
    });
    Table::new(
        "Published by others, not measured here".to_owned(),
        Column::all(&["network", "source", "setting", "task avg, %", "joint, %", "FLOPs, ×"]),
        rows.collect(),
    )
}

/// What a choice was made of.
pub fn candidates(choice: &ChoiceResult) -> Table {
    let greek = choice.candidates.iter().any(|c| c.alpha.is_some() || c.beta.is_some());
    let rows = choice.candidates.iter().map(|candidate| {
        let mut cells = Vec::new();
        if greek {
            let plain = |x: f64| Cell::Number(Number::new(x.to_string(), x));
            cells.extend(
                [candidate.alpha, candidate.beta].map(|x| x.filter(|x| x.is_finite()).map_or(Cell::Empty, plain)),
            );
        }
        cells.push(Cell::share(Some(candidate.task_avg)));
        Row { best: candidate.model == choice.best, ..Row::new(&candidate.model, cells) }
    });
    let names: &[&str] = if greek { &["candidate", "α", "β", "task avg, %"] } else { &["candidate", "task avg, %"] };
    Table::new(
        format!(
            "{}: {} on validation images of {}",
            line(&choice.name),
            of_them(choice.candidates.len(), "candidate", "candidates"),
            of_them(choice.n_sets, "merge set", "merge sets")
        ),
        Column::all(names),
        rows.collect(),
    )
}

/// The groups of a merged network.
pub fn merge_points(shown: &Shown) -> Table {
    let rows = shown.points.iter().map(|point| {
        let groups = point.single + point.within + point.across;
        let largest = point.sizes.keys().next_back().copied().unwrap_or(0);
        let cells = [point.n_features, groups, point.single, point.within, point.across, largest];
        Row::new(&point.name, cells.map(Cell::count).to_vec())
    });
    let names = ["merge point", "features", "groups", "single", "within", "across", "largest group"];
    Table::new(format!("{}: its merge points", line(&shown.model)), Column::all(&names), rows.collect())
}

/// Where the time went.
pub fn time(results: &Results) -> Table {
    let rows = results.time.iter().map(|stage| {
        let seconds = Cell::Number(Number::new(duration(stage.seconds), stage.seconds));
        Row::new(&stage.stage, vec![Cell::count(stage.n_files), seconds])
    });
    let total: f64 = results.time.iter().map(|stage| stage.seconds).sum();
    Table::new(
        format!("Time by stage, {} in all; runs side by side count each", duration(total)),
        Column::all(&["stage", "files", "time"]),
        rows.collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invented;

    #[test]
    fn a_choice_marks_its_winner() {
        let results = invented::results();
        let choice = &results.cases[0].choices[0];
        let table = candidates(choice);
        assert_eq!(table.rows.iter().filter(|row| row.best).count(), 1);
        assert!(table.caption.contains("20 candidates on validation images of 3 merge sets"), "{}", table.caption);
        let mut plain = choice.clone();
        for candidate in &mut plain.candidates {
            (candidate.alpha, candidate.beta) = (None, None);
        }
        assert_eq!(candidates(&plain).columns.len(), 2);
    }

    #[test]
    fn missing_figures_are_dashes() {
        let table = published(&invented::results().published);
        assert_eq!(table.rows[2].cells[3].plain(), "–");
    }
}
