//! The table of a report.

use std::collections::BTreeMap;
use zipit::report::{DataUsed, Report, Row, RowKind, Score, TaskScore};
use zipit_stage::Table;

/// A task, in whatever networks it is.
struct Column<'a> {
    header: String,
    name: &'a str,
    classes: Vec<&'a str>,
}

/// The tasks of all rows, and which of each row's tasks stands in which column. Networks may call different tasks by one
/// name, and a merged network gives one of them another: tasks of the same classes are the same, unless a row has two.
fn columns<'a>(rows: impl Iterator<Item = &'a [TaskScore]>) -> (Vec<Column<'a>>, Vec<BTreeMap<usize, &'a TaskScore>>) {
    let mut columns: Vec<Column<'_>> = Vec::new();
    let mut places = Vec::new();
    for tasks in rows {
        let mut own: BTreeMap<usize, &TaskScore> = BTreeMap::new();
        for task in tasks {
            let classes: Vec<&str> = task.classes.iter().map(|class| class.class.as_str()).collect();
            let free = |at: &usize| !own.contains_key(at) && columns[*at].classes == classes;
            let called = |at: &usize| columns[*at].name == task.task || columns[*at].header == task.task;
            let at = (0..columns.len()).filter(free).find(called).or_else(|| (0..columns.len()).find(free));
            let at = at.unwrap_or_else(|| {
                let taken = |header: &str| columns.iter().any(|column| column.header == header);
                let others = (2..).map(|n| format!("{}-{n}", task.task));
                let mut headers = std::iter::once(task.task.clone()).chain(others);
                let header = headers.find(|header| !taken(header)).expect("there is always another number");
                columns.push(Column { header, name: &task.task, classes });
                columns.len() - 1
            });
            own.insert(at, task);
        }
        places.push(own);
    }
    (columns, places)
}

/// One line per network, one column per task.
pub fn table(report: &Report) -> Table {
    let (tasks, places) = columns(report.rows.iter().map(|row| row.scores.tasks.as_slice()));
    let mut headers = vec!["network"];
    headers.extend(tasks.iter().map(|task| task.header.as_str()));
    headers.extend(["task avg", "joint"]);
    let joints = || report.rows.iter().filter_map(|row| row.scores.joint.as_ref());
    let gated = joints().any(|joint| joint.calibrated.is_some());
    let made = report.rows.iter().any(|row| !row.used.images.is_empty());
    let masked = report.rows.iter().any(|row| row.masks.is_some());
    if masked {
        headers.push("task known");
    }
    if gated {
        headers.extend(["calibrated", "gate", "task found"]);
    }
    headers.extend(["FLOPs", "×", "parameters", "file"]);
    if made {
        headers.extend(["images", "labels", "task identity", "gradients"]);
    }
    let mut table = Table::new(headers);
    for (row, own) in report.rows.iter().zip(&places) {
        let mut cells = vec![row.model.clone()];
        let task = |at: usize| own.get(&at).map_or_else(|| "-".to_owned(), |task| accuracy(&task.score));
        cells.extend((0..tasks.len()).map(task));
        cells.push(if row.scores.tasks.len() == tasks.len() { percent(row.scores.task_avg) } else { "-".to_owned() });
        let joint = row.scores.joint.as_ref();
        let shown = |score: Option<&Score>| score.map_or_else(|| "-".to_owned(), accuracy);
        cells.push(shown(joint.map(|j| &j.softmax)));
        if masked {
            cells.push(row.masks.map_or_else(|| "-".to_owned(), |n| format!("{n} masks")));
        }
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

/// Images, labels, task identity, gradients; dashes for a network as it was trained, and nothing done to it since.
fn used(row: &Row) -> [String; 4] {
    if row.kind == RowKind::Single && row.used.images.is_empty() {
        return ["trained", "-", "-", "-"].map(str::to_owned);
    }
    let images: Vec<String> = row.used.images.iter().map(|s| s.n.to_string()).collect();
    let word = |used: bool| if used { "yes" } else { "no" }.to_owned();
    let images = if images.is_empty() { "-".to_owned() } else { images.join(" + ") };
    let gradients = row.used.gradients_in_a_word().to_owned();
    [images, word(row.used.labels), word(row.used.task_identity), gradients]
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
        text += "images: unlabelled ones, in the order of the stages that used some (collect, recalibrate, refit, adapt, gate)\n";
    }
    if report.rows.iter().any(|row| row.used.task_identity) {
        text += "joint: each head's softmax; calibrated: a temperature and a bias per head; gate: a linear map from features to \
                 tasks, fitted to which task's data an image is from\n";
    }
    if report.rows.iter().any(|row| row.masks.is_some()) {
        text += "task known: the task of every image must be told and says which mask is put on, so that nothing is joint; \
                 FLOPs are one network's, parameters what is stored of all (the base and the unified vector, heads), masks \
                 are bits and in the file's size only\n";
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

/// The merged network to take: the best task average, the cheaper one of equals. Masked networks are no one network.
pub fn best(report: &Report) -> Option<&Row> {
    let merged = report.rows.iter().filter(|row| row.kind == RowKind::Merged && row.masks.is_none());
    merged.max_by(|a, b| a.scores.task_avg.total_cmp(&b.scores.task_avg).then_with(|| b.cost.macs.cmp(&a.cost.macs)))
}

pub fn percent(share: f64) -> String {
    format!("{:.2}", 100.0 * share)
}

fn accuracy(score: &Score) -> String {
    format!("{} ±{:.1}", percent(score.accuracy), 50.0 * (score.high - score.low))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use zipit::report::ClassScore;

    #[test]
    fn tasks_of_one_name_are_told_by_their_classes() {
        let task = |name: &str, classes: &[&str]| TaskScore {
            task: name.to_owned(),
            score: Score::new(1, 2).unwrap(),
            classes: classes.iter().map(|&c| ClassScore { class: c.to_owned(), n_correct: 1, n: 2 }).collect(),
        };
        let found = |rows: &[Vec<TaskScore>]| {
            let (columns, places) = columns(rows.iter().map(Vec::as_slice));
            let headers: Vec<String> = columns.into_iter().map(|column| column.header).collect();
            let places: Vec<Vec<(usize, String)>> = places
                .into_iter()
                .map(|own| own.into_iter().map(|(at, task)| (at, task.task.clone())).collect())
                .collect();
            (headers, places)
        };
        let at = |at: usize, name: &str| (at, name.to_owned());
        let (a, b) = (task("T", &["0", "1"]), task("T", &["2", "3"]));
        let merged = vec![a.clone(), task("T-2", &["2", "3"])];
        let (headers, places) = found(&[vec![a.clone()], vec![b.clone()], vec![a.clone(), b], merged]);
        assert_eq!(headers, ["T", "T-2"]);
        assert_eq!(places[1], [at(1, "T")]);
        assert_eq!(places[2], [at(0, "T"), at(1, "T")]);
        assert_eq!(places[3], [at(0, "T"), at(1, "T-2")]);
        // Two heads of one task, as before.
        let (headers, places) = found(&[vec![a.clone()], vec![a.clone()], vec![a, task("T-2", &["0", "1"])]]);
        assert_eq!(headers, ["T", "T-2"]);
        assert_eq!([&places[0], &places[1]], [&[at(0, "T")]; 2]);
        assert_eq!(places[2], [at(0, "T"), at(1, "T-2")]);
    }
}
