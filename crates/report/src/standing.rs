//! Which rows of a case stand out, and what they are compared with.

use crate::numbers::{fixed, of_them, percents};
use crate::results::{CaseResults, RowResult, Stat};
use std::collections::BTreeSet;
use zipit::report::RowKind;

/// Up to here a network counts as no dearer than one of those it was merged from.
pub const ONE_NETWORK: f64 = 1.01;
/// Up to here it is still far from two.
pub const SOME_HEADS: f64 = 1.6;

/// Whether it is one network for all tasks, and no file of masks.
fn is_one(row: &RowResult) -> bool {
    row.kind == RowKind::Merged && row.masks.is_none()
}

/// The merged row of the highest task average among those of at most `limit` times one network's FLOPs; the first of
/// equals.
pub fn best(case: &CaseResults, limit: f64) -> Option<&RowResult> {
    best_of(&case.rows, limit, |_| true)
}

/// The same among the rows that are `wanted`.
pub fn best_of(rows: &[RowResult], limit: f64, wanted: impl Fn(&RowResult) -> bool) -> Option<&RowResult> {
    let cheap = |row: &&RowResult| is_one(row) && row.relative_macs <= limit && wanted(row);
    rows.iter().filter(cheap).filter(|row| row.task_avg.mean.is_finite()).fold(None, |best, row| match best {
        Some(best) if best.task_avg.mean >= row.task_avg.mean => Some(best),
        _ => Some(row),
    })
}

/// The merged row that costs most among those that are `wanted` and cost at most `limit` times one network's FLOPs: what
/// one would take without having seen any accuracy. Costs are compared to one decimal; of equals a budget's, then the first.
pub fn dearest_of(rows: &[RowResult], limit: f64, wanted: impl Fn(&RowResult) -> bool) -> Option<&RowResult> {
    let fits = |row: &&RowResult| is_one(row) && row.relative_macs <= limit && wanted(row);
    let rank = |row: &RowResult| ((10.0 * row.relative_macs).round() as i64, row.extent.starts_with("budget"));
    rows.iter().filter(fits).fold(None, |dearest, row| match dearest {
        Some(dearest) if rank(dearest) >= rank(row) => Some(dearest),
        _ => Some(row),
    })
}

/// All networks side by side.
pub fn ensemble(case: &CaseResults) -> Option<&RowResult> {
    case.rows.iter().find(|row| row.kind == RowKind::Ensemble)
}

/// The figure by which rows are compared: the task average; of all networks side by side, where all have the same classes
/// and nobody knows which of them to ask, their joint accuracy.
pub fn compared<'a>(case: &CaseResults, row: &'a RowResult) -> &'a Stat {
    let jointly = row.kind == RowKind::Ensemble && one_label_space(case);
    row.joint.as_ref().filter(|_| jointly).unwrap_or(&row.task_avg)
}

/// Whether several networks were merged that all have the same classes.
fn one_label_space(case: &CaseResults) -> bool {
    let classes = |row: &RowResult| row.classes.iter().map(|of| of.class.clone()).collect::<BTreeSet<_>>();
    let all: Vec<_> = singles(case).map(classes).collect();
    all.len() > 1 && all.windows(2).all(|two| two[0] == two[1] && !two[0].is_empty())
}

/// The networks as they were trained, one row per task.
pub fn singles(case: &CaseResults) -> impl Iterator<Item = &RowResult> {
    case.rows.iter().filter(|row| row.kind == RowKind::Single)
}

/// Mean of the networks as they were trained, each on its own task.
pub fn singles_average(case: &CaseResults) -> Option<f64> {
    let own: Vec<f64> = singles(case).map(|row| row.task_avg.mean).filter(|mean| mean.is_finite()).collect();
    Stat::new(own).map(|stat| stat.mean)
}

/// Matched one feature to one and averaged, which others compare with: without refit where there is such a row.
pub fn one_to_one(case: &CaseResults) -> Option<&RowResult> {
    let merged = |row: &&RowResult| row.kind == RowKind::Merged && row.model.contains("permute") && !row.gradients;
    let rows = || case.rows.iter().filter(merged);
    rows().find(|row| !row.model.contains("refit")).or_else(|| rows().next())
}

/// A piece of a sentence.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Piece {
    /// The words.
    pub text: String,
    /// Whether they are what the sentence is about.
    pub strong: bool,
}

/// The case in one sentence.
pub fn sentence(case: &CaseResults) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut say = |text: String, strong| pieces.push(Piece { text, strong });
    let (cheap, dear) = (best(case, ONE_NETWORK), best(case, SOME_HEADS));
    let Some(first) = cheap.or(dear) else {
        say(format!("No merged network has at most {SOME_HEADS} times one network’s FLOPs."), false);
        return pieces;
    };
    say(format!("With {} times one network’s FLOPs, {} reaches ", fixed(first.relative_macs), first.model), false);
    say(format!("{} %", percents(&first.task_avg)), true);
    say(" task average".to_owned(), false);
    if let Some(row) = ensemble(case) {
        let cost = fixed(row.relative_macs);
        say(format!("; the networks side by side, {cost} times the FLOPs, have "), false);
        say(format!("{} %", percents(compared(case, row))), true);
    }
    if let Some(row) = one_to_one(case).filter(|row| row.model != first.model) {
        say(format!("; matched one to one ({}) they have ", row.model), false);
        say(format!("{} %", percents(&row.task_avg)), true);
    }
    if let Some(row) = dear.filter(|row| row.model != first.model) {
        say(format!(". With {} times the FLOPs, {} reaches ", fixed(row.relative_macs), row.model), false);
        say(format!("{} %", percents(&row.task_avg)), true);
    }
    say(spread(first), false);
    pieces
}

fn spread(row: &RowResult) -> String {
    let n = row.task_avg.values.len();
    match row.task_avg.std {
        Some(_) => format!(" (mean ± standard deviation of {}).", of_them(n, "merge set", "merge sets")),
        None => " (one merge set).".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invented;

    #[test]
    fn the_best_is_cheap_enough_and_the_first_of_equals() {
        let mut case = invented::results().cases.remove(0);
        assert_eq!(best(&case, ONE_NETWORK).unwrap().model, "ward refit");
        assert_eq!(best(&case, SOME_HEADS).unwrap().model, "ward refit, budget 1.5");
        let mut equal = best(&case, ONE_NETWORK).unwrap().clone();
        equal.model = "later".into();
        case.rows.push(equal);
        assert_eq!(best(&case, ONE_NETWORK).unwrap().model, "ward refit");
        // Where the task must be known, nothing is compared.
        let known = case.rows.last_mut().unwrap();
        (known.masks, known.task_avg.mean) = (Some(2), 1.0);
        assert_eq!(best(&case, ONE_NETWORK).unwrap().model, "ward refit");
        for row in &mut case.rows {
            row.task_avg.mean = f64::NAN;
        }
        assert_eq!(best(&case, ONE_NETWORK), None);
    }

    #[test]
    fn the_dearest_is_told_by_cost_alone() {
        let mut row = invented::results().cases.remove(0).rows.into_iter().find(|r| r.kind == RowKind::Merged).unwrap();
        let rows: Vec<RowResult> =
            [("full", 1.0, 0.9), ("budget 1", 0.97, 0.8), ("to 13/20", 1.32, 0.7), ("budget 2", 1.98, 0.6)]
                .map(|(extent, macs, accuracy)| {
                    (row.extent, row.relative_macs, row.task_avg.mean) = (extent.to_owned(), macs, accuracy);
                    row.clone()
                })
                .to_vec();
        let extent = |limit| dearest_of(&rows, limit, |_| true).map(|row| row.extent.as_str());
        assert_eq!(
            [0.5, ONE_NETWORK, SOME_HEADS, 2.0].map(extent),
            [None, Some("budget 1"), Some("to 13/20"), Some("budget 2")]
        );
        assert_eq!(dearest_of(&rows, 2.0, |row| row.extent == "full").unwrap().extent, "full");
    }

    #[test]
    fn of_one_label_space_the_ensemble_is_asked_jointly() {
        let mut case = invented::results().cases.remove(0);
        let row = ensemble(&case).unwrap().clone();
        assert_eq!(compared(&case, &row), &row.task_avg);
        let classes = singles(&case).next().unwrap().classes.clone();
        for single in case.rows.iter_mut().filter(|row| row.kind == RowKind::Single) {
            single.classes.clone_from(&classes);
        }
        assert_eq!(Some(compared(&case, &row)), row.joint.as_ref());
        let text: String = sentence(&case).into_iter().map(|piece| piece.text).collect();
        assert!(text.contains(&format!("have {} %", percents(row.joint.as_ref().unwrap()))), "{text}");
        let alone = RowResult { joint: None, ..row };
        assert_eq!(compared(&case, &alone), &alone.task_avg);
    }

    #[test]
    fn a_sentence_names_what_it_compares() {
        let case = invented::results().cases.remove(0);
        let text: String = sentence(&case).into_iter().map(|piece| piece.text).collect();
        for part in
            ["ward refit reaches 95.", "2.00 times the FLOPs", "one to one (permute)", "budget 1.5", "9 merge sets"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        let empty = CaseResults { rows: vec![], ..case };
        assert!(sentence(&empty)[0].text.starts_with("No merged network"));
    }
}
