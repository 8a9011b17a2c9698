//! The table of a report.

use zipit::report::{DataUsed, Report, Row, RowKind, Score};
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
    headers.extend(["task avg", "joint"]);
    let joints = || report.rows.iter().filter_map(|row| row.scores.joint.as_ref());
    let gated = joints().any(|joint| joint.calibrated.is_some());
    let made = report.rows.iter().any(|row| !row.used.images.is_empty());
    if gated {
        headers.extend(["calibrated", "gate", "task found"]);
    }
    headers.extend(["FLOPs", "×", "parameters", "file"]);
    if made {
        headers.extend(["images", "labels", "task identity", "gradients"]);
    }
    let mut table = Table::new(headers);
    for row in &report.rows {
        let mut cells = vec![row.model.clone()];
        cells.extend(tasks.iter().map(|name| {
            let found = row.scores.tasks.iter().find(|t| t.task == *name);
            found.map_or_else(|| "-".to_owned(), |t| accuracy(&t.score))
        }));
        cells.push(if row.scores.tasks.len() == tasks.len() { percent(row.scores.task_avg) } else { "-".to_owned() });
        let joint = row.scores.joint.as_ref();
        let shown = |score: Option<&Score>| score.map_or_else(|| "-".to_owned(), accuracy);
        cells.push(shown(joint.map(|j| &j.softmax)));
        if gated {
            cells.push(shown(joint.and_then(|j| j.calibrated.as_ref())));
            cells.push(shown(joint.and_then(|j| j.gate.as_ref())));
            cells.push(shown(joint.and_then(|j| j.task.as_ref())));
        }
        cells.push(format!("{:.1} M", row.cost.macs as f64 / 1e6));
        cells.push(row.relative_macs.map_or_else(|| "-".to_owned(), |r| format!("{r:.2}")));
        cells.push(format!("{:.3} M", row.cost.params as f64 / 1e6));
        cells.push(format!("{:.2} MB", row.file_bytes as f64 / 1e6));
        if made {
            cells.extend(used(row));
        }
        table.row(cells);
    }
    table
}

/// Images, labels, task identity, gradients; dashes for a network as it was trained.
fn used(row: &Row) -> [String; 4] {
    if row.kind == RowKind::Single {
        return ["trained", "-", "-", "-"].map(str::to_owned);
    }
    let images: Vec<String> = row.used.images.iter().map(|s| s.n.to_string()).collect();
    let word = |used: bool| if used { "yes" } else { "no" }.to_owned();
    let images = if images.is_empty() { "-".to_owned() } else { images.join(" + ") };
    [images, word(row.used.labels), word(row.used.task_identity), word(row.used.gradients)]
}

/// What a reader must know, under the table.
pub fn notes(report: &Report) -> String {
    let mut text = String::new();
    for data in &report.data {
        let digest = data.digest.get(..12).unwrap_or(&data.digest);
        text += &format!("{} (BLAKE3 {digest}…)\n", images(data));
    }
    text += "accuracy in %, ± half of the 95 % Wilson interval; FLOPs are multiply-adds of convolutions and linear layers\n";
    if report.rows.iter().any(|row| !row.used.images.is_empty()) {
        text +=
            "images: unlabelled ones, in the order of the stages that used some (collect, recalibrate, refit, gate)\n";
    }
    if report.rows.iter().any(|row| row.used.task_identity) {
        text += "joint: each head's softmax; calibrated: a temperature and a bias per head; gate: a linear map from features to \
                 tasks, fitted to which task's data an image is from\n";
    }
    for note in &report.notes {
        text += &format!("{note}\n");
    }
    text
}

/// What accuracies were measured on: `6000 images of fashion-mnist, val split`.
pub fn images(data: &DataUsed) -> String {
    format!("{} images of {}, {} split", data.n_images, data.name, data.split)
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
