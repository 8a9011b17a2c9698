//! The table of a case: one row per way to merge.

use super::{Cell, Column, Number, Row, Table};
use crate::numbers::{count, line, of_them};
use crate::results::{CaseResults, RowResult};
use crate::standing::{ONE_NETWORK, best};
use std::collections::BTreeSet;

/// The stages that take images, in the order of the pipeline.
const STAGES: [&str; 5] = ["collect", "recalibrate", "refit", "adapt", "gate"];

/// Every row of the case; `joint`: with the accuracies over all classes together.
pub fn accuracy(case: &CaseResults, joint: bool) -> Table {
    // The networks stand first, in the order in which they were merged.
    let mut seen = BTreeSet::new();
    let tasks: Vec<&String> =
        case.rows.iter().flat_map(|row| row.tasks.keys()).filter(|task| seen.insert(*task)).collect();
    let any = |found: fn(&RowResult) -> bool| joint && case.rows.iter().any(found);
    let (softmax, calibrated, gate) =
        (any(|row| row.joint.is_some()), any(|row| row.calibrated.is_some()), any(|row| row.gate.is_some()));
    let mut columns = vec![Column::new("", "network")];
    let mut add = |group, name: &str| columns.push(Column::new(group, line(name)));
    for task in &tasks {
        add("accuracy, %", task);
    }
    add("accuracy, %", "task avg");
    for (is_there, name) in [(softmax, "joint"), (calibrated, "calibrated"), (gate, "gate")] {
        if is_there {
            add("accuracy, %", name);
        }
    }
    for (group, name) in [
        ("cost", "FLOPs, ×"),
        ("cost", "parameters, ×"),
        ("cost", "parameters, M"),
        ("made with", "images"),
        ("made with", "labels"),
        ("made with", "task identity"),
        ("made with", "gradients"),
    ] {
        add(group, name);
    }
    let first = best(case, ONE_NETWORK);
    let mut kind = None;
    let rows = case.rows.iter().map(|row| {
        let mut cells: Vec<Cell> = tasks.iter().map(|task| Cell::stat(row.tasks.get(*task))).collect();
        cells.push(Cell::stat(Some(&row.task_avg)));
        for (is_there, stat) in [(softmax, &row.joint), (calibrated, &row.calibrated), (gate, &row.gate)] {
            if is_there {
                cells.push(Cell::stat(stat.as_ref()));
            }
        }
        cells.extend([Cell::times(Some(row.relative_macs)), Cell::times(Some(row.relative_params))]);
        cells.extend([Cell::millions(row.params), images(row)]);
        cells.extend([row.labels, row.task_identity].map(Cell::yes));
        cells.push(match (row.gradients, row.source_gradients) {
            (false, true) => Cell::text("sources"),
            (gradients, _) => Cell::yes(gradients),
        });
        let begins = kind.replace(row.kind).is_some_and(|before| before != row.kind);
        Row { best: first.is_some_and(|best| std::ptr::eq(best, row)), begins, ..Row::new(&row.model, cells) }
    });
    let rows = rows.collect();
    let sets = of_them(case.sets.len(), "merge set", "merge sets");
    let spread = if case.sets.len() > 1 { format!("mean ± standard deviation of {sets}") } else { sets };
    Table::new(format!("{}: {spread}", line(&case.name)), columns, rows)
}

fn images(row: &RowResult) -> Cell {
    if row.images.is_empty() {
        return Cell::Empty;
    }
    let number = |n: u64| Number { text: count(n), spread: None, value: Some(n.to_string()), std: None };
    let mut stages: Vec<(&String, u64)> = row.images.iter().map(|(stage, n)| (stage, *n)).collect();
    stages.sort_by_key(|(stage, _)| STAGES.iter().position(|known| known == stage).unwrap_or(STAGES.len()));
    Cell::Numbers { numbers: stages.into_iter().map(|(stage, n)| (line(stage), number(n))).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invented;

    #[test]
    fn columns_are_only_those_that_hold_something() {
        let results = invented::results();
        let names = |table: &Table| table.columns.iter().map(|column| column.name.clone()).collect::<Vec<_>>();
        let full = accuracy(&results.cases[0], true);
        assert_eq!(names(&full)[..7], ["network", "low", "high", "task avg", "joint", "calibrated", "gate"]);
        assert!(!names(&accuracy(&results.cases[0], false)).contains(&"joint".to_owned()));
        assert!(full.caption.contains("9 merge sets"));
        for row in &full.rows {
            assert_eq!(row.cells.len() + 1, full.columns.len(), "{}", row.name);
        }
        let bare = accuracy(&invented::bare().cases[0], true);
        assert!(bare.caption.ends_with("1 merge set"));
        assert!(bare.rows.iter().flat_map(|row| &row.cells).all(|cell| !cell.plain().contains('±')));
    }

    #[test]
    fn one_row_is_best() {
        let table = accuracy(&invented::results().cases[0], true);
        let best: Vec<&str> = table.rows.iter().filter(|row| row.best).map(|row| row.name.as_str()).collect();
        assert_eq!(best, ["ward refit"]);
        assert_eq!(table.rows.iter().filter(|row| row.begins).count(), 2);
    }
}
