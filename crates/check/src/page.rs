//! The page.

use crate::Args;
use crate::answers::{self, Answers};
use crate::estimate::{self, Estimate, memory_in_words, time_in_words};
use anyhow::bail;
use serde::Serialize;
use zipit::graph::Cost;
use zipit::prospects::{Prospects, Stop};
use zipit_stage::merging::read_models;
use zipit_stage::{Format, Stage, Table};

/// As many names are spelt out before the rest is only counted.
const NAMED: usize = 4;

/// What `--format json` prints.
#[derive(Debug, Serialize)]
struct Page<'a> {
    mergeable: bool,
    #[serde(flatten)]
    answers: &'a Answers<'a>,
    estimates: Vec<Estimate>,
    threads: usize,
    device: String,
}

pub fn check(args: &Args, stage: &Stage) -> anyhow::Result<()> {
    let files = read_models(&args.models)?;
    let answers = answers::of(&files)?;
    let has_batch_norms = answers.prospects.as_ref().is_some_and(|p| p.n_batch_norms > 0);
    let estimates = if !answers.mergeable() {
        vec![]
    } else if args.no_trial || args.common.dry_run {
        estimate::untried(has_batch_norms, &files, args, stage)?
    } else {
        estimate::tried(has_batch_norms, stage)?
    };
    let page = Page {
        mergeable: answers.mergeable(),
        answers: &answers,
        estimates,
        threads: stage.n_threads(),
        device: args.device.to_string(),
    };
    stage.print(&text(&page, args.format)?)?;
    if let Some(first) = answers.differences.first() {
        bail!("these models cannot be merged with each other: {first}");
    }
    Ok(())
}

fn text(page: &Page<'_>, format: Format) -> anyhow::Result<String> {
    let answers = page.answers;
    let mut facts = Table::new(["question", "answer"]);
    facts_of(answers, &mut facts);
    if format == Format::Json {
        return facts.render(format, page);
    }
    let mut text = match answers.differences.split_first() {
        None => format!("can be merged: {}\n", listed(&answers.models)),
        Some((first, _)) => format!("cannot be merged: {first}\n\n{}\n", listed(&answers.models)),
    };
    text += &format!("\n{}", facts.render(format, &())?);
    if !answers.stops.is_empty() {
        text += &format!("\n{}", merges(answers).render(format, &())?);
    }
    if !page.estimates.is_empty() {
        text += &format!("\n{}", stages(page).render(format, &())?);
    }
    Ok(text)
}

fn facts_of(answers: &Answers<'_>, facts: &mut Table) {
    if let Some(advice) = answers.advice {
        facts.row(["what to do", advice]);
    }
    if answers.differences.len() > 1 {
        facts.row(["other differences", &format!("{}:", answers.differences.len() - 1)]);
        answers.differences[1..].iter().take(NAMED).for_each(|what| facts.row(["", what]));
    }
    for pair in &answers.pairs {
        let [a, b] = pair.models.map(|i| i + 1);
        let cosine = pair.weight_cosine.map_or_else(|| "no layers in common".to_owned(), |c| format!("cosine {c:.3}"));
        let verdict = if pair.shared_initialisation {
            "yes: averaging (match --method identity) may do, and so may methods for fine-tunes of one network"
        } else {
            "no: averaging (match --method identity) would not do; features must be matched"
        };
        facts.row([format!("models {a} and {b} share an initialisation"), format!("{verdict} ({cosine})")]);
    }
    for (model, tasks) in (1..).zip(&answers.tasks) {
        for task in *tasks {
            let classes = match task.classes.len() {
                0 => "no classes".to_owned(),
                1 => format!("1 class: {}", some(&task.classes)),
                n => format!("{n} classes: {}", some(&task.classes)),
            };
            facts.row([format!("task of model {model}"), format!("{}: {classes}", task.name)]);
        }
    }
    facts.row(["classes in common".to_owned(), some(&answers.classes_in_common)]);
    let Some(prospects) = answers.prospects.as_ref().filter(|_| answers.mergeable()) else { return };
    let one_head = answers.one_head.as_ref().map_or("possible", |reason| reason.split(". ").next().unwrap_or(reason));
    facts.row(["--heads merge", one_head]);
    spaces(prospects, facts);
    for (model, dead) in (1..).zip(&answers.dead) {
        if dead.filters + dead.norms > 0 {
            let what = format!("{} filters of zeros, {} BatchNorm weights of zero", dead.filters, dead.norms);
            facts.row([format!("dead weights of model {model}"), what]);
        }
    }
}

fn spaces(prospects: &Prospects, facts: &mut Table) {
    let Prospects { n_spaces, n_features, apart, together, blocks, fixed, not_solved, n_batch_norms } = prospects;
    facts.row(["what is merged".to_owned(), format!("{n_spaces} spaces of {n_features} features")]);
    if !apart.is_empty() {
        let what = format!(
            "{} spaces beside carried nodes, where merging costs more than it saves: {}",
            apart.len(),
            some(apart)
        );
        facts.row(["left to each model".to_owned(), what]);
    }
    let groups: Vec<String> = together.iter().map(|names| names.join(" + ")).collect();
    if !groups.is_empty() {
        facts.row(["together or not at all".to_owned(), format!("{} groups: {}", groups.len(), some(&groups))]);
    }
    let blocks: Vec<String> = blocks.iter().map(|(name, n)| format!("{name} ({n})")).collect();
    if !blocks.is_empty() {
        facts.row(["within blocks only".to_owned(), format!("{} spaces: {}", blocks.len(), some(&blocks))]);
    }
    let fixed: Vec<String> = fixed
        .iter()
        .map(|kept| match &kept.by {
            None => format!("{} {} ({})", kept.why, kept.name, kept.dim),
            Some(by) if kept.why == "tied" => {
                format!("{} ({}), features of one layer tied to each other by {by}", kept.name, kept.dim)
            }
            Some(by) if kept.why == "blocks" => {
                format!("{} ({}), blocks from parts or of two sizes at {by}", kept.name, kept.dim)
            }
            Some(by) => format!("{} ({}), bound to {} by {by}", kept.name, kept.dim, kept.why),
        })
        .collect();
    facts.row(["never merged".to_owned(), some(&fixed)]);
    let kept: Vec<String> = not_solved.iter().map(|(op, n)| format!("{n} {op}")).collect();
    if !kept.is_empty() {
        facts.row(["what refit leaves as merged".to_owned(), kept.join(", ")]);
    }
    if *n_batch_norms == 0 {
        facts.row(["BatchNorm", "none: recalibrate has nothing to do after apply; use refit"]);
    }
}

/// Full and partial merges, and none.
fn merges(answers: &Answers<'_>) -> Table {
    let mut table = Table::new(["merged up to", "layers", "flag of match", "FLOPs of one", "of all", "parameters"]);
    let n_models = answers.models.len() as f64;
    let mut row = |what: &str, layers: String, flag: String, cost: Cost| {
        let [macs, params] = [(cost.macs, answers.one.macs), (cost.params, answers.one.params)]
            .map(|(own, one)| own as f64 / one.max(1) as f64);
        let [macs, of_all, params] = [macs, macs / n_models, params].map(|share| format!("{share:.2}×"));
        table.row([what.to_owned(), layers, flag, macs, of_all, params]);
    };
    for Stop { at, layers: [k, n], cost, .. } in &answers.stops {
        let flag = at.as_ref().map_or_else(|| "(none)".to_owned(), |at| format!("--stop-at {at}"));
        row(at.as_deref().unwrap_or("the heads"), format!("{k}/{n}"), flag, *cost);
    }
    let n = answers.stops.first().map_or(0, |stop| stop.layers[1]);
    let all = std::iter::repeat_n(answers.one, answers.models.len()).sum();
    row("nothing: all networks", format!("0/{n}"), format!("--stop-at 0/{n}"), all);
    table
}

fn stages(page: &Page<'_>) -> Table {
    let on = format!("time ({}, {} threads)", page.device, page.threads);
    let mut table = Table::new(["stage", "images", "memory", &on]);
    for estimate in &page.estimates {
        let images = if estimate.images > 0 { estimate.images.to_string() } else { "-".to_owned() };
        let memory = memory_in_words(estimate.peak_bytes);
        let time = estimate.seconds.map_or_else(|| "not tried".to_owned(), time_in_words);
        table.row([estimate.stage.name().to_owned(), images, memory, time]);
    }
    table
}

/// `1 a.safetensors, 2 b.safetensors`.
fn listed(models: &[String]) -> String {
    (1..).zip(models).map(|(i, model)| format!("{i} {model}")).collect::<Vec<_>>().join(", ")
}

/// The first few names, and how many more there are.
fn some<T: AsRef<str>>(names: &[T]) -> String {
    let shown: Vec<&str> = names.iter().take(NAMED).map(AsRef::as_ref).collect();
    match names.len() {
        0 => "none".to_owned(),
        n if n > NAMED => format!("{} and {} more", shown.join(", "), n - NAMED),
        _ => shown.join(", "),
    }
}
