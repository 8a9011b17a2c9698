//! The table of a report.

use std::collections::BTreeSet;
use zipit::report::{Report, Row, RowKind, Score};
use zipit_stage::Table;

/// One line per network, one column per task.
pub fn table(report: &Report) -> Table {
    let mut tasks: Vec<&str> = Vec::new();
    for task in report.rows.iter().flat_map(|row| &row.scores.tasks) {
        if !tasks.contains(&task.task.as_str()) {
            tasks.push(&task.task);
        }
    }
    let mut headers = vec!["network"];
    headers.extend(&tasks);
    headers.extend(["task avg", "joint", "FLOPs", "×", "parameters", "file"]);
    let mut table = Table::new(headers);
    for row in &report.rows {
        let mut cells = vec![row.model.clone()];
        cells.extend(tasks.iter().map(|name| {
            let found = row.scores.tasks.iter().find(|t| t.task == *name);
            found.map_or_else(|| "-".to_owned(), |t| accuracy(&t.score))
        }));
        cells.push(if row.scores.tasks.len() == tasks.len() { percent(row.scores.task_avg) } else { "-".to_owned() });
        cells.push(row.scores.joint.as_ref().map_or_else(|| "-".to_owned(), accuracy));
        cells.push(format!("{:.1} M", row.cost.macs as f64 / 1e6));
        cells.push(row.relative_macs.map_or_else(|| "-".to_owned(), |r| format!("{r:.2}")));
        cells.push(format!("{:.3} M", row.cost.params as f64 / 1e6));
        cells.push(format!("{:.2} MB", row.file_bytes as f64 / 1e6));
        table.row(cells);
    }
    table
}

/// What a reader must know, under the table.
pub fn notes(report: &Report) -> String {
    let mut text = String::new();
    for data in &report.data {
        let digest = data.digest.get(..12).unwrap_or(&data.digest);
        text += &format!("{} images of {} ({} split, BLAKE3 {digest}…)\n", data.n_images, data.name, data.split);
    }
    text += "accuracy in %, ± half of the 95 % Wilson interval; FLOPs are multiply-adds of convolutions and linear layers\n";
    let methods: BTreeSet<&str> = report.rows.iter().map(|row| row.method.as_str()).filter(|m| !m.is_empty()).collect();
    if !methods.is_empty() {
        text += "no labels and no gradients were used to merge\n";
    }
    for note in &report.notes {
        text += &format!("{note}\n");
    }
    text
}

/// The merged network to take: the best task average, the cheaper one of equals.
pub fn best(report: &Report) -> Option<&Row> {
    let merged = report.rows.iter().filter(|row| row.kind == RowKind::Merged);
    merged.max_by(|a, b| a.scores.task_avg.total_cmp(&b.scores.task_avg).then_with(|| b.cost.macs.cmp(&a.cost.macs)))
}

pub fn percent(share: f64) -> String {
    format!("{:.2}", 100.0 * share)
}

fn accuracy(score: &Score) -> String {
    format!("{} ±{:.1}", percent(score.accuracy), 50.0 * (score.high - score.low))
}
