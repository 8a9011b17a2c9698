//! A line for every image of a data set.

use crate::{Args, choice};
use ndarray::Array2;
use std::collections::BTreeSet;
use zipit::Task;
use zipit_artifact::atomic;
use zipit_stage::{Format, Given, Stage, Table, classifier};

pub fn predict(args: &Args, stage: &Stage, file: &Given) -> anyhow::Result<()> {
    let instead = "write arrays, -o FILE.npz";
    let chosen = args.chosen(file)?;
    for network in chosen.clone().map(|t| file.outline(t)).filter(|network| !network.classifies().contains(&true)) {
        classifier(file.path().display(), &network, instead)?;
    }
    let set = args.set()?;
    let told = format!("{} {} images", set.len(), set.split);
    if args.common.dry_run {
        return stage.print(&format!("would predict {told}\n"));
    }
    let (mut tasks, mut logits): (Vec<Task>, Vec<Array2<f32>>) = <_>::default();
    for t in chosen {
        let network = file.network(t)?;
        let model = classifier(file.path().display(), &network, instead)?;
        let batches = set.batches(&model.preprocess, args.batch_size(&model)?, None);
        for found in args.outputs(stage, (file.path(), &model), &batches)? {
            logits.push(found.into_dimensionality()?);
        }
        tasks.extend(model.tasks.iter().cloned());
    }
    let mut table = Table::new(headers(&tasks, file.joint().is_some()));
    for (i, (name, class)) in set.names().zip(set.class_names()).enumerate() {
        let mut row = vec![name, class.to_owned()];
        for (task, logits) in tasks.iter().zip(&logits) {
            let (best, probability) = choice::best(logits.row(i));
            row.extend([task.classes[best].clone(), format!("{probability:.6}")]);
        }
        if let Some((head, class)) = choice::joint(file.joint(), tasks.len(), &logits, i) {
            let task = &tasks[head];
            row.extend([task.name.clone(), task.classes[class].clone()]);
        }
        table.row(row);
    }
    let csv = table.render(Format::Csv, &())?;
    let Some(out) = &args.out else { return stage.print(&csv) };
    atomic::write(out, |file| file.write_all(csv.as_bytes()))?;
    stage.record(out);
    stage.print(&format!("{}: predictions for {told}\n", out.display()))
}

/// Every column is called something else, whatever the tasks are called.
fn headers(tasks: &[Task], joint: bool) -> Vec<String> {
    let joint = if joint { &["joint task", "joint class"][..] } else { &[] };
    let mut taken: BTreeSet<String> = ["image", "class"].iter().chain(joint).map(|&name| name.to_owned()).collect();
    let mut headers = vec!["image".to_owned(), "class".to_owned()];
    for task in tasks {
        let mut name = task.name.clone();
        while taken.contains(&name) || taken.contains(&probability_of(&name)) {
            name += " (task)";
        }
        let columns = [name.clone(), probability_of(&name)];
        taken.extend(columns.clone());
        headers.extend(columns);
    }
    headers.extend(joint.iter().map(|&name| name.to_owned()));
    headers
}

fn probability_of(task: &str) -> String {
    format!("{task} probability")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_columns_have_one_name() {
        let task = |name: &str| Task { name: name.to_owned(), classes: vec![] };
        let of = |names: &[&str], joint| headers(&names.iter().map(|name| task(name)).collect::<Vec<_>>(), joint);
        assert_eq!(of(&["cats"], false), ["image", "class", "cats", "cats probability"]);
        let names = ["class", "image", "a", "a probability", "joint task"];
        for joint in [false, true] {
            let headers = of(&names, joint);
            assert_eq!(headers.len(), 2 + 2 * names.len() + if joint { 2 } else { 0 });
            assert_eq!(headers.iter().collect::<BTreeSet<_>>().len(), headers.len(), "{headers:?}");
            assert_eq!(headers[..4], ["image", "class", "class (task)", "class (task) probability"]);
        }
    }
}
