//! The results as Markdown.

use crate::numbers::{line, of_them};
use crate::results::{CaseResults, ChoiceResult, Results};
use crate::standing::sentence;
use crate::tables::{Table, accuracy, published, time};
use zipit_stage::table::{Format, Table as Plain};

/// The whole text.
#[must_use]
pub fn render(results: &Results) -> String {
    let mut text = format!("# {}\n\n", escaped(&results.title));
    for paragraph in paragraphs(&results.about) {
        text += &format!("{}\n\n", escaped(paragraph));
    }
    text += &origin(results);
    for case in &results.cases {
        text += &case_text(case, results.joint);
    }
    if !results.published.is_empty() {
        text += "## Published by others\n\nNot measured here: as printed in the sources, whose settings differ from ours.\n\n";
        text += &table(&published(&results.published));
    }
    if !results.time.is_empty() {
        let time = time(results);
        text += &format!("## Where the time went\n\n{}.\n\n{}", escaped(&time.caption), table(&time));
    }
    if !results.notes.is_empty() {
        text += "## Notes\n\n";
        for note in &results.notes {
            text += &format!("- {}\n", escaped(note));
        }
    }
    text.trim_end().to_owned() + "\n"
}

/// What is set apart by empty lines.
pub fn paragraphs(text: &str) -> impl Iterator<Item = &str> {
    text.split("\n\n").map(str::trim).filter(|paragraph| !paragraph.is_empty())
}

fn origin(results: &Results) -> String {
    let mut text = String::new();
    for data in &results.data {
        let images = of_them(data.n_images as usize, "image", "images");
        text += &format!("- measured on: {} of {} ({})\n", images, escaped(&data.name), escaped(&data.split));
    }
    if let Some(commit) = &results.commit {
        text += &format!("- commit: {}\n", escaped(commit));
    }
    text + &format!("- machine: {}\n\n", escaped(&results.machine))
}

fn case_text(case: &CaseResults, joint: bool) -> String {
    let table_of_case = accuracy(case, joint);
    let summary: String = sentence(case)
        .iter()
        .map(|piece| if piece.strong { format!("**{}**", escaped(&piece.text)) } else { escaped(&piece.text) })
        .collect();
    let mut text = format!("## {}\n\n{summary}\n\n", escaped(&case.name));
    text += &format!("{}. Accuracies in %.\n\n", escaped(&table_of_case.caption));
    text += &table(&table_of_case);
    text += "Merge sets:\n\n";
    for set in &case.sets {
        text += &format!("- {}\n", escaped(&set.join(" + ")));
    }
    text += "\n";
    for choice in &case.choices {
        text += &chosen(choice);
    }
    text
}

fn chosen(choice: &ChoiceResult) -> String {
    let of = of_them(choice.candidates.len(), "candidate", "candidates");
    let on = of_them(choice.n_sets, "merge set", "merge sets");
    format!(
        "Chosen on validation images, {}: {} (of {of}, by task average on {on}).\n\n",
        escaped(&choice.name),
        escaped(&choice.best)
    )
}

fn table(table: &Table) -> String {
    let mut plain = Plain::new(table.columns.iter().map(|column| escaped(&column.name)));
    for row in &table.rows {
        let cells = row.cells.iter().map(|cell| escaped(&cell.plain()));
        let bold = |cell: String| if row.best { format!("**{cell}**") } else { cell };
        plain.row(std::iter::once(escaped(&row.name)).chain(cells).map(bold));
    }
    // Only JSON and CSV can fail.
    plain.render(Format::Md, &()).unwrap_or_default() + "\n"
}

/// Without what Markdown would take for its own.
pub(crate) fn escaped(text: &str) -> String {
    line(text).chars().flat_map(|c| "\\|<>*[]`".contains(c).then_some('\\').into_iter().chain([c])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invented;

    #[test]
    fn everything_is_said() {
        let text = render(&invented::results());
        for part in [
            "# Invented numbers for tests",
            "measured on: 10,000 images of invented-fashion (test)",
            "commit: 0123456789ab+",
            "9 merge sets",
            "- low_seed1 + high_seed1\n",
            "Chosen on validation images, zip, α and β chosen: zip α",
            "(of 20 candidates, by task average on 3 merge sets)",
            "| **ward refit**",
            "## Published by others\n\nNot measured here",
            "## Where the time went",
            "## Notes",
        ] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
        assert_eq!(text.matches("\n| **").count(), 2, "one bold row per case");
        let ours = text.split("## Published").next().unwrap();
        assert!(!ours.contains("Git Re-Basin"));
    }

    #[test]
    fn what_is_not_there_is_not_said() {
        let text = render(&invented::bare());
        for part in ["±", "NaN", "Chosen", "Published", "commit", "Notes", "joint", "Where the time went"] {
            assert!(!text.contains(part), "{part}:\n{text}");
        }
        assert!(text.contains("1 merge set\\.") || text.contains("1 merge set. Accuracies"));
    }

    #[test]
    fn names_cannot_break_out() {
        let mut results = invented::bare();
        results.cases[0].rows[3].model = "<script>a | b</script>\n# no".into();
        results.cases[0].rows[3].task_avg.mean = f64::NAN;
        let text = render(&results);
        assert!(text.contains("\\<script\\>a \\| b\\</script\\> # no"), "{text}");
        assert!(!text.contains("NaN") && !text.contains("\n# no"));
    }
}
