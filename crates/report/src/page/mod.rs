//! The results as one HTML page that needs nothing but itself: no script, no font, no network.

mod view;

use crate::error::Result;
use crate::figures::Figure;
use crate::results::Results;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Value, context};

/// The page. Names and texts of the results are escaped; the figures' SVG is not, for it is ours.
///
/// # Errors
/// A template that does not fit what it is given.
pub fn render(results: &Results, figures: &[Figure]) -> Result<String> {
    let mut templates = Environment::new();
    templates.set_auto_escape_callback(|_| AutoEscape::Html);
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true).build()?;
    templates.set_syntax(syntax);
    templates.add_template("page", include_str!("page.html"))?;
    let style = Value::from_safe_string(include_str!("page.css").to_owned());
    let page = context! { style => style, ..Value::from(Serde(view::Page::new(results, figures))) };
    Ok(templates.get_template("page")?.render(page)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::all;
    use crate::invented;

    fn page(results: &Results) -> String {
        render(results, &all(results, &[]).unwrap()).unwrap()
    }

    #[test]
    fn the_page_is_whole_and_needs_nothing_else() {
        let text = page(&invented::results());
        assert!(text.starts_with("<!doctype html>\n<html lang=\"en\">") && text.ends_with("</html>\n"));
        for part in [
            "<h1>Invented numbers for tests</h1>",
            "name=\"viewport\"",
            "In one sentence",
            "Published by others, not measured here",
            "An invented paper, table 2",
            "match stats.h5 -o plan.bin",
            "What the columns mean",
            "so the sets are not independent",
        ] {
            assert!(text.contains(part), "{part}");
        }
        for part in ["<script", "http://", "https://", "<link", "url(", "NaN", "@import"] {
            assert!(!text.contains(part), "{part}");
        }
        assert_eq!(text.matches("<svg").count(), all(&invented::results(), &[]).unwrap().len());
        assert_eq!(text, page(&invented::results()));
    }

    #[test]
    fn every_number_of_the_tables_can_be_read_by_a_program() {
        let results = invented::results();
        let text = page(&results);
        for row in results.cases.iter().flat_map(|case| &case.rows) {
            for value in
                [row.task_avg.mean, row.task_avg.std.unwrap(), row.relative_macs, row.relative_params, row.params]
            {
                assert!(text.contains(&format!("\"{value}\"")), "{}: {value}", row.model);
            }
        }
    }

    #[test]
    fn names_cannot_break_out() {
        let mut results = invented::results();
        let hostile = "\"><script>alert(1)</script>";
        results.title = hostile.into();
        results.about = hostile.into();
        results.machine = hostile.into();
        results.notes.push(hostile.into());
        results.published[0].source = hostile.into();
        results.time[0].stage = hostile.into();
        let case = &mut results.cases[0];
        case.name = hostile.into();
        case.sets[0][0] = hostile.into();
        case.rows[3].model = hostile.into();
        case.choices[0].candidates[0].model = hostile.into();
        let shown = case.shown.as_mut().unwrap();
        shown.commands[0] = hostile.into();
        shown.points[0].name = hostile.into();
        shown.chain.args.push(hostile.into());
        shown.chain.from[0].file = hostile.into();
        let text = page(&results);
        assert!(!text.contains("<script") && !text.contains("\"><script"), "{text}");
        assert!(text.matches("&lt;script&gt;").count() > 10);
    }

    #[test]
    fn what_is_not_there_has_no_section() {
        let text = page(&invented::bare());
        for part in
            ["±", "Published", "Chosen on validation", "A look inside", "Where the time went", "Notes", "joint</th>"]
        {
            assert!(!text.contains(part), "{part}");
        }
    }
}
