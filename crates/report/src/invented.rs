//! The invented results of the tests.

use crate::results::Results;

/// `tests/golden/report/results.json`.
pub fn results() -> Results {
    serde_json::from_str(include_str!("../../../tests/golden/report/results.json")).unwrap()
}

/// One case of one merge set, with nothing that can be left out.
pub fn bare() -> Results {
    let mut results = results();
    results.cases.truncate(1);
    results.cases[0].sets.truncate(1);
    results.cases[0].choices.clear();
    results.cases[0].shown = None;
    results.cases[0].x = None;
    for row in &mut results.cases[0].rows {
        row.joint = None;
        row.calibrated = None;
        row.gate = None;
        row.images.clear();
        row.classes.clear();
        for stat in row.tasks.values_mut().chain([&mut row.task_avg]) {
            stat.std = None;
            stat.values.truncate(1);
        }
    }
    (results.axis, results.commit, results.joint) = (None, None, false);
    results.published.clear();
    results.time.clear();
    results.notes.clear();
    results
}
