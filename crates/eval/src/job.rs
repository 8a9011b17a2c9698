//! Evaluating: every network once on all images, then rows for networks and ensemble.

use crate::{Args, print, rows};
use anyhow::{Context, bail, ensure};
use ndarray::Array2;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use zipit::graph::Cost;
use zipit::report::{DataUsed, Head, Report, Row, RowKind, Used, score};
use zipit::{Model, Task};
use zipit_artifact::checkpoint::{self, Checkpoint, Tensor};
use zipit_artifact::header::{InputRef, Kind};
use zipit_artifact::report::{self as report_file, ReportFile};
use zipit_data::Split;
use zipit_stage::images::{ImageSet, tasks_of};
use zipit_stage::{Format, Given, Stage, classifier};
use zipit_torch::device::libtorch_version;
use zipit_torch::{Network, batch_size, evaluate};

/// A network that was run: its file, what classifies images of it, and the logits of each such head, `[n, classes]`.
struct Ran {
    file: Given,
    tasks: Vec<Task>,
    logits: Vec<Array2<f32>>,
}

/// What to do with a network that classifies nothing.
const NO_ACCURACY: &str = "it has no accuracy; predict -o FILE.npz writes such outputs as arrays";

pub fn eval(args: &Args, stage: &Stage) -> anyhow::Result<()> {
    let (mut models, mut reports) = (Vec::new(), Vec::new());
    for path in &args.files {
        match zipit_artifact::sniff(path)? {
            Kind::Report => reports.push(report_file::read::<Report>(path)?),
            _ => models.push(path.clone()),
        }
    }
    let n_rows = models.len();
    models.extend(args.ensemble.iter().filter(|m| !args.files.contains(m)).cloned());
    let files = models.iter().map(|path| Given::read(path)).collect::<Result<Vec<_>, _>>()?;
    let mut inputs: Vec<InputRef> = files.iter().map(Given::input_ref).collect();
    inputs.extend(reports.iter().map(ReportFile::input_ref));
    if let Some(masked) = files.iter().find(|f| f.masks().is_some() && args.ensemble.iter().any(|m| m == f.path())) {
        let path = masked.path().display();
        bail!(
            "{path} holds masked networks, of which one is taken at a time: an ensemble is of networks by themselves"
        );
    }
    let set = if files.is_empty() {
        None
    } else {
        let networks: Vec<Cow<'_, Model>> =
            files.iter().flat_map(|f| (0..f.n_networks()).map(move |t| f.outline(t))).collect();
        let networks: Vec<&Model> = networks.iter().map(AsRef::as_ref).collect();
        Some(args.images.choose(&tasks_of(&networks), Split::Test)?.as_stored())
    };
    inputs.extend(set.iter().flat_map(ImageSet::inputs));
    let environment = [("libtorch".to_owned(), libtorch_version().to_owned())].into();
    let provenance = stage.provenance(inputs, environment);
    if args.common.dry_run {
        let n = set.as_ref().map_or(0, ImageSet::len);
        return stage.print(&format!("would run {} networks on {n} images\n", files.len()));
    }
    if let Some(logits) = &args.logits {
        stage.may_replace(logits)?;
    }
    if let (Some(out), None) = (&args.out, &args.logits)
        && stage.up_to_date(out, &provenance)?
    {
        return print(args, stage, &report_file::read::<Report>(out)?.content);
    }
    let mut report = match &set {
        Some(set) => {
            let ran = run(files, set, args, stage)?;
            if let Some(path) = &args.logits {
                let file =
                    Checkpoint { tensors: named_logits(&ran), state: "{}".to_owned(), provenance: provenance.clone() };
                checkpoint::write(path, &file)?;
            }
            measure(&ran, n_rows, set, args)?
        }
        None => Report { data: vec![], notes: args.note.clone(), rows: vec![] },
    };
    join(&mut report, reports)?;
    order_and_relate(&mut report);
    if let Some(out) = &args.out {
        report_file::write(out, &report, &provenance)?;
        stage.record(out);
    }
    print(args, stage, &report)
}

fn print(args: &Args, stage: &Stage, report: &Report) -> anyhow::Result<()> {
    let mut text = print::table(report).render(args.format, report)?;
    if matches!(args.format, Format::Table | Format::Md) {
        text += &format!("\n{}", print::notes(report));
        if let Some(best) = print::best(report).filter(|_| args.best) {
            let cost = best.relative_macs.map(|r| format!(" at {r:.2}× the FLOPs of one network")).unwrap_or_default();
            text += &format!(
                "\nBest merged network on {}: {}, task average {} %{cost}\n",
                report.data.iter().map(print::images).collect::<Vec<_>>().join(" and "),
                best.model,
                print::percent(best.scores.task_avg)
            );
        }
    }
    stage.print(&text)
}

/// Every network on every image: the ensemble needs them all anyway.
fn run(files: Vec<Given>, set: &ImageSet, args: &Args, stage: &Stage) -> anyhow::Result<Vec<Ran>> {
    let n: usize = files.iter().map(Given::n_networks).sum();
    let progress = stage.progress("eval", "images", (n * set.len()) as u64);
    files
        .into_iter()
        .map(|file| {
            let (mut tasks, mut logits) = (Vec::new(), Vec::new());
            for t in 0..file.n_networks() {
                let network = file.network(t)?;
                let model = classifier(file.path().display(), &network, NO_ACCURACY)?;
                let batch_size =
                    args.images.batch_size.map_or_else(|| batch_size(&model.graph, args.device), |n| Ok(n as usize))?;
                let batches = set.batches(&model.preprocess, batch_size, None);
                let found = Network::folded(&model, &BTreeSet::new(), args.device)
                    .and_then(|network| evaluate::logits(&network, &batches, &progress))
                    .with_context(|| format!("{}", file.path().display()))?;
                logits.extend(found);
                tasks.extend(model.tasks.iter().cloned());
            }
            Ok(Ran { file, tasks, logits })
        })
        .collect()
}

fn measure(ran: &[Ran], n_rows: usize, set: &ImageSet, args: &Args) -> anyhow::Result<Report> {
    // A class is known by its name, in whichever data set it stands.
    let mut ids: BTreeMap<&str, u32> = BTreeMap::new();
    let labels: Vec<u32> = set
        .class_names()
        .map(|name| {
            let next = ids.len() as u32;
            *ids.entry(name).or_insert(next)
        })
        .collect();
    let row = |members: &[&Ran], model: String, kind: RowKind| -> anyhow::Result<Row> {
        let tasks: Vec<Task> = members.iter().flat_map(|r| r.tasks.clone()).collect();
        let meanings: Vec<Vec<Option<u32>>> =
            tasks.iter().map(|t| t.classes.iter().map(|c| ids.get(c.as_str()).copied()).collect()).collect();
        let heads: Vec<Head> = members
            .iter()
            .flat_map(|r| &r.logits[..r.tasks.len()])
            .zip(&meanings)
            .map(|(logits, labels)| Head { logits: logits.view(), labels })
            .collect();
        let mut cost = Cost::default();
        let mut file_bytes = 0;
        for member in members {
            cost = cost + member.file.cost()?;
            file_bytes += std::fs::metadata(member.file.path())?.len();
        }
        // Heads of different files were not fitted to be compared.
        let calibration = match members {
            [one] => one.file.joint().map(|joint| (joint, one.logits.get(tasks.len()).map(Array2::view))),
            _ => None,
        };
        let masks = if let [one] = members { one.file.masks() } else { None };
        let mut scores = score(&tasks, &heads, calibration, &labels).with_context(|| model.clone())?;
        // Which head it is has to be known.
        scores.joint = scores.joint.filter(|_| masks.is_none());
        let method = if members.len() == 1 { rows::method(members[0].file.provenance()) } else { String::new() };
        // A network as it was trained used what is not asked here, unless gradients came after.
        let adapted = members.iter().any(|r| r.file.provenance().last_run_of("adapt").is_some());
        let trained = kind == RowKind::Single && !adapted;
        let used = if trained { Used::default() } else { rows::used(members.iter().map(|r| r.file.provenance())) };
        Ok(Row {
            model,
            kind,
            method,
            scores,
            cost,
            relative_macs: None,
            file_bytes,
            used,
            masks: masks.map(|n| n as u64),
        })
    };
    let mut rows = Vec::new();
    for (i, r) in ran[..n_rows].iter().enumerate() {
        let stem = stem(r.file.path());
        let name = args.label.clone().filter(|_| i == 0 && n_rows == 1).unwrap_or(stem);
        rows.push(row(&[r], name, rows::kind(r.file.provenance()))?);
    }
    if !args.ensemble.is_empty() {
        let members = args
            .ensemble
            .iter()
            .map(|path| ran.iter().find(|r| r.file.path() == path).context("an ensemble member that was run"))
            .collect::<anyhow::Result<Vec<_>>>()?;
        // The label is the network's; the ensemble's where no network has a row of its own.
        let label = args.label.clone().filter(|_| n_rows == 0);
        let name = label.unwrap_or_else(|| format!("ensemble of {}", members.len()));
        rows.push(row(&members, name, RowKind::Ensemble)?);
    }
    let data = set
        .datasets()
        .iter()
        .enumerate()
        .map(|(i, d)| DataUsed {
            name: d.name().to_owned(),
            digest: d.digest().to_owned(),
            split: set.split.to_string(),
            n_images: set.n_images_of(i) as u64,
        })
        .collect();
    Ok(Report { data, notes: args.note.clone(), rows })
}

/// Takes the rows of earlier reports into the table, if they are about the same images.
fn join(report: &mut Report, files: Vec<ReportFile<Report>>) -> anyhow::Result<()> {
    for file in files {
        if report.data.is_empty() {
            report.data.clone_from(&file.content.data);
        }
        if report.data != file.content.data {
            let name = |r: &Report| {
                r.data.iter().map(|d| format!("{} {} {}", d.n_images, d.name, d.split)).collect::<Vec<_>>()
            };
            bail!(
                "{} is about other images ({}) than the rest ({}): one table needs one set of images",
                file.path.display(),
                name(&file.content).join(", "),
                name(report).join(", ")
            );
        }
        report.rows.extend(file.content.rows);
        for note in file.content.notes {
            if !report.notes.contains(&note) {
                report.notes.push(note);
            }
        }
    }
    ensure!(!report.rows.is_empty(), "nothing to evaluate");
    Ok(())
}

/// FLOPs relative to one source network, where one is in the table.
fn order_and_relate(report: &mut Report) {
    let rank = |kind: RowKind| match kind {
        RowKind::Single => 0,
        RowKind::Ensemble => 1,
        RowKind::Merged => 2,
    };
    report.rows.sort_by_key(|row| rank(row.kind));
    let unit = report.rows.iter().find(|row| row.kind == RowKind::Single).map(|row| row.cost.macs);
    for row in &mut report.rows {
        row.relative_macs = unit.filter(|&u| u > 0).map(|u| row.cost.macs as f64 / u as f64);
    }
}

/// `NETWORK/TASK` → logits.
fn named_logits(ran: &[Ran]) -> BTreeMap<String, Tensor> {
    ran.iter()
        .flat_map(|r| {
            let tasks = r.tasks.iter().zip(&r.logits);
            tasks.map(|(task, logits)| {
                (format!("{}/{}", stem(r.file.path()), task.name), Tensor::F32(logits.clone().into_dyn()))
            })
        })
        .collect()
}

fn stem(path: &Path) -> String {
    let path: PathBuf = path.to_owned();
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}
