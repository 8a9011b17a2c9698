//! All experiments that were run, one line per case: ours beside the authors' rule.

use crate::markdown::escaped;
use crate::numbers::{NOTHING, fixed, percents};
use crate::results::{CaseResults, Results, RowResult};
use crate::standing::{ONE_NETWORK, SOME_HEADS, compared, dearest_of, ensemble, one_to_one};
use zipit_experiment::variant::FROM_SCRATCH;
use zipit_stage::table::{Format, Table};

/// The page.
#[must_use]
pub fn render(all: &[Results]) -> String {
    let mut text = "# Results\n\n\
        What came out of the experiments that were run, made by `make results`. Task average on test images in %, mean ± \
        standard deviation over merge sets, × FLOPs of one network in brackets; in square brackets, how much more than \
        permute. *Authors’ rule*: zip, pinv, BatchNorm reset, α and β chosen on validation images where the experiment \
        says so. *Ours*: ward, refit. *By importance*: features matched by what they do to the logits (gradients through the \
        networks, none by their weights), refit. *Adapted*: gradients on unlabelled images after it, the row on most images. \
        Of the budgets and stop points that an experiment ran, all columns take the one of most FLOPs within the limit (to \
        one decimal; a budget before a stop point; of equals the first), so that nothing is chosen by accuracy on test \
        images; an experiment’s page marks its best row. No labels in any of them, and no gradients but in the last two. \
        Every experiment’s page has the whole table, how many images each row took, the commit and the machine.\n\n"
        .to_owned();
    text += &table(all);
    text += "\nThe networks by themselves have the ensemble’s task average; where all have the same classes, the ensemble’s \
        figure is its joint accuracy. The paper’s abstract says that zip and partial zip improve over permute by 20–60 %.\n";
    let published: Vec<String> = all
        .iter()
        .flat_map(|results| &results.published)
        .map(|row| {
            let percent = |x: Option<f64>| x.map_or_else(|| NOTHING.to_owned(), |x| format!("{:.1}", 100.0 * x));
            [&row.source, &row.setting, &row.model]
                .map(|cell| escaped(cell))
                .into_iter()
                .chain([percent(row.joint), percent(row.task_avg)])
                .collect::<Vec<_>>()
                .join(" | ")
        })
        .collect();
    if !published.is_empty() {
        text += "\n## Published by others\n\nNot measured here; other widths, other training.\n\n\
            | source | setting | network | joint | task average |\n|---|---|---|---|---|\n";
        for row in published {
            text += &format!("| {row} |\n");
        }
    }
    text
}

fn table(all: &[Results]) -> String {
    let headers = [
        "experiment",
        "case",
        "sets",
        "ensemble",
        "permute",
        "authors’ rule, 1.0×",
        "authors’ rule, ≤ 1.6×",
        "ours, 1.0×",
        "ours, ≤ 1.6×",
        "by importance, 1.0×",
        "adapted, 1.0×",
    ];
    let mut table = Table::new(headers);
    for results in all {
        for case in &results.cases {
            table.row(line(results, case));
        }
    }
    table.render(Format::Md, &()).unwrap_or_default()
}

/// Groups of any size from any network, every layer solved again: with the default images, whichever heads there are, and
/// nobody told from which task an image is.
fn ours(row: &RowResult) -> bool {
    ["ward refit", "ward refit, one head", "ward refit, one head, surest network"].contains(&row.series.as_str())
}

/// By what features do to the logits, every layer solved again.
fn by_importance(row: &RowResult) -> bool {
    row.source_gradients && !row.gradients && row.series.contains("refit") && !row.series.contains("permute")
}

/// The row that was adapted, not trained from scratch, at most one network's FLOPs, on most images.
fn adapted(case: &CaseResults) -> Option<&RowResult> {
    let begun = |row: &RowResult| row.gradients && !row.series.contains(FROM_SCRATCH);
    let images = |row: &&RowResult| row.images.get("adapt").copied().unwrap_or(0);
    let most =
        case.rows.iter().filter(|row| begun(row) && row.relative_macs <= ONE_NETWORK).map(|row| images(&row)).max();
    dearest_of(&case.rows, ONE_NETWORK, |row| begun(row) && Some(images(&row)) == most)
}

fn line(results: &Results, case: &CaseResults) -> Vec<String> {
    let permute = one_to_one(case);
    let authors = |row: &RowResult| row.series.starts_with("zip ") && row.series.contains(" pinv") && !row.gradients;
    let shown = |row: Option<&RowResult>| {
        row.map_or_else(
            || NOTHING.to_owned(),
            |row| format!("{} ({}×)", percents(compared(case, row)), fixed(row.relative_macs)),
        )
    };
    let gain = |row: Option<&RowResult>| {
        let more = row.zip(permute).map(|(row, permute)| 100.0 * (row.task_avg.mean / permute.task_avg.mean - 1.0));
        more.map_or_else(String::new, |more| format!(" [{:+} %]", more.round() as i64))
    };
    let taken = |limit: f64, of: &dyn Fn(&RowResult) -> bool| {
        let row = dearest_of(&case.rows, limit, of);
        shown(row) + &gain(row)
    };
    let named = |row: Option<&RowResult>| {
        row.map_or_else(
            || NOTHING.to_owned(),
            |row| format!("{}: {}{}", escaped(&row.model), shown(Some(row)), gain(Some(row))),
        )
    };
    vec![
        format!("[{0}]({0}/results.md)", results.name),
        escaped(&case.name),
        case.sets.len().to_string(),
        shown(ensemble(case)),
        shown(permute),
        taken(ONE_NETWORK, &authors),
        taken(SOME_HEADS, &authors),
        named(dearest_of(&case.rows, ONE_NETWORK, ours)),
        named(dearest_of(&case.rows, SOME_HEADS, ours)),
        named(dearest_of(&case.rows, ONE_NETWORK, by_importance)),
        named(adapted(case)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invented;

    #[test]
    fn a_line_per_case_with_our_rows() {
        let results = invented::results();
        let text = render(std::slice::from_ref(&results));
        let lines: Vec<&str> = text.lines().filter(|line| line.contains("/results.md)")).collect();
        assert_eq!(lines.len(), results.cases.len());
        let row = dearest_of(&results.cases[0].rows, SOME_HEADS, ours).unwrap();
        assert_eq!(row.extent, "budget 1.5");
        assert!(lines[0].contains(&format!("{}: {}", row.model, percents(&row.task_avg))), "{text}");
        assert!(text.contains("## Published by others") && text.contains(&results.published[0].source));
    }

    #[test]
    fn what_was_adapted_stands_in_a_column_of_its_own() {
        let mut results = invented::results();
        let case = &mut results.cases[0];
        assert!(adapted(case).is_none());
        let ours = dearest_of(&case.rows, ONE_NETWORK, ours).unwrap().clone();
        let scratch = format!("many, adapted{FROM_SCRATCH}");
        for (name, images, mean) in [(&*scratch, 9000, 0.97), ("few", 500, 0.99), ("many", 9000, 0.98)] {
            let mut row = RowResult { model: name.into(), series: name.into(), gradients: true, ..ours.clone() };
            row.images.insert("adapt".into(), images);
            row.task_avg.mean = mean;
            case.rows.push(row);
        }
        // Of those alike in cost the one on most images, whatever its accuracy; and no other column shows it.
        assert_eq!(adapted(case).unwrap().model, "many");
        let line = line(&results, &results.cases[0]);
        assert!(line.last().unwrap().starts_with("many: 98.00"), "{line:?}");
        assert!(!line[..line.len() - 1].iter().any(|cell| cell.contains("many")), "{line:?}");
    }
}
