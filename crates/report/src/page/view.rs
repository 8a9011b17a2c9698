//! What the template is given.

use crate::figures::{Figure, Place};
use crate::markdown::paragraphs;
use crate::numbers::{count, line, of_them};
use crate::results::{CaseResults, Made, Results, RowResult, Shown};
use crate::standing::{Piece, sentence};
use crate::tables::{Table, accuracy, candidates, merge_points, published, time};
use minijinja::Value;
use serde::Serialize;

/// The whole page.
#[derive(Serialize)]
pub struct Page {
    title: String,
    about: Vec<String>,
    facts: Vec<(&'static str, String)>,
    axis: Vec<Drawn>,
    cases: Vec<Case>,
    published: Option<Table>,
    /// What there is something to say about.
    has: Vec<&'static str>,
    time: Option<Table>,
    time_figures: Vec<Drawn>,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct Case {
    name: String,
    sentence: Vec<Piece>,
    table: Table,
    sets: Vec<String>,
    figures: Vec<Drawn>,
    choices: Vec<Choice>,
    choice_figures: Vec<Drawn>,
    inside: Option<Inside>,
    inside_figures: Vec<Drawn>,
}

#[derive(Serialize)]
struct Choice {
    name: String,
    best: String,
    table: Table,
}

#[derive(Serialize)]
struct Inside {
    model: String,
    networks: String,
    points: Table,
    commands: Vec<String>,
    chain: Vec<Link>,
}

#[derive(Serialize)]
struct Link {
    file: String,
    digest: String,
    tool: String,
    args: String,
    from: Vec<Link>,
}

#[derive(Serialize)]
struct Drawn {
    title: String,
    alt: String,
    svg: Value,
}

impl Page {
    /// Of these results.
    pub fn new(results: &Results, figures: &[Figure]) -> Self {
        let cases: Vec<Case> =
            results.cases.iter().enumerate().map(|(i, case)| Case::new(case, i, results.joint, figures)).collect();
        let any = |found: &dyn Fn(&RowResult) -> bool| results.cases.iter().flat_map(|case| &case.rows).any(found);
        let has = [
            ("joint", any(&|row| results.joint && row.joint.is_some())),
            ("spread", any(&|row| row.task_avg.std.is_some())),
            ("choices", cases.iter().any(|case| !case.choices.is_empty())),
            ("insides", cases.iter().any(|case| case.inside.is_some())),
        ];
        Self {
            title: line(&results.title),
            about: paragraphs(&results.about).map(line).collect(),
            facts: facts(results),
            axis: drawn(figures, Place::Axis),
            published: (!results.published.is_empty()).then(|| published(&results.published)),
            has: has.into_iter().filter_map(|(name, is_there)| is_there.then_some(name)).collect(),
            cases,
            time: (!results.time.is_empty()).then(|| time(results)),
            time_figures: drawn(figures, Place::Time),
            notes: results.notes.iter().map(|note| line(note)).collect(),
        }
    }
}

impl Case {
    fn new(case: &CaseResults, index: usize, joint: bool, figures: &[Figure]) -> Self {
        let choices = case.choices.iter().map(|choice| Choice {
            name: line(&choice.name),
            best: line(&choice.best),
            table: candidates(choice),
        });
        Self {
            name: line(&case.name),
            sentence: sentence(case),
            table: accuracy(case, joint),
            sets: case.sets.iter().map(|set| line(&set.join(" + "))).collect(),
            figures: drawn(figures, Place::Case(index)),
            choices: choices.collect(),
            choice_figures: drawn(figures, Place::Choice(index)),
            inside: case.shown.as_ref().map(Inside::new),
            inside_figures: drawn(figures, Place::Inside(index)),
        }
    }
}

impl Inside {
    fn new(shown: &Shown) -> Self {
        Self {
            model: line(&shown.model),
            networks: line(&shown.networks.join(" + ")),
            points: merge_points(shown),
            commands: shown.commands.iter().map(|command| line(command)).collect(),
            chain: vec![Link::new(&shown.chain)],
        }
    }
}

impl Link {
    fn new(made: &Made) -> Self {
        Self {
            file: line(&made.file),
            digest: made.blake3.chars().take(12).collect(),
            tool: line(&made.tool),
            args: line(&made.args.join(" ")),
            from: made.from.iter().map(Self::new).collect(),
        }
    }
}

fn drawn(figures: &[Figure], place: Place) -> Vec<Drawn> {
    let here = figures.iter().filter(|figure| figure.place == place);
    here.map(|figure| Drawn {
        title: figure.title.clone(),
        alt: figure.alt.clone(),
        svg: Value::from_safe_string(figure.inline.clone()),
    })
    .collect()
}

fn facts(results: &Results) -> Vec<(&'static str, String)> {
    let data = results.data.iter().map(|data| {
        let images = of_them(data.n_images as usize, "image", "images");
        format!("{images} of {} ({})", line(&data.name), line(&data.split))
    });
    let sets: usize = results.cases.iter().map(|case| case.sets.len()).sum();
    let cases = of_them(results.cases.len(), "case", "cases");
    let mut facts = vec![
        ("Measured on", data.collect::<Vec<_>>().join("; ")),
        ("Merged", format!("{cases}, {}", of_them(sets, "merge set", "merge sets"))),
    ];
    let digests = results.data.iter().map(|data| data.digest.chars().take(12).collect::<String>());
    facts.push(("Data, BLAKE3", digests.collect::<Vec<_>>().join("; ")));
    if let Some(commit) = &results.commit {
        facts.push(("Commit", line(commit)));
    }
    facts.push(("Machine", line(&results.machine)));
    let seconds: f64 = results.time.iter().map(|stage| stage.seconds).filter(|seconds| seconds.is_finite()).sum();
    if seconds > 0.0 {
        let files = results.time.iter().map(|stage| stage.n_files as u64).sum();
        facts.push(("Computed", format!("{} files in {}", count(files), crate::numbers::duration(seconds))));
    }
    facts.retain(|(_, text)| !text.is_empty());
    facts
}
