//! A line for every image of a data set.

use crate::{Args, choice};
use ndarray::{Array2, ArrayD};
use std::collections::BTreeSet;
use zipit::Task;
use zipit_artifact::atomic;
use zipit_artifact::model::ModelFile;
use zipit_stage::{Format, Stage, Table, classifier};

pub fn predict(args: &Args, stage: &Stage, file: &ModelFile) -> anyhow::Result<()> {
    let model = classifier(file.path.display(), &file.model, "write arrays, -o FILE.npz")?;
    let set = args.set()?;
    let told = format!("{} {} images", set.len(), set.split);
    if args.common.dry_run {
        return stage.print(&format!("would predict {told}\n"));
    }
    let batches = set.batches(&model.preprocess, args.batch_size(&model)?, None);
    let logits = args.outputs(stage, (&file.path, &model), &batches)?;
    let logits = logits.into_iter().map(ArrayD::into_dimensionality).collect::<Result<Vec<Array2<f32>>, _>>()?;
    let mut table = Table::new(headers(&model.tasks, model.joint.is_some()));
    for (i, (name, class)) in set.names().zip(set.class_names()).enumerate() {
        let mut row = vec![name, class.to_owned()];
        for (task, logits) in model.tasks.iter().zip(&logits) {
            let (best, probability) = choice::best(logits.row(i));
            row.extend([task.classes[best].clone(), format!("{probability:.6}")]);
        }
        if let Some((head, class)) = choice::joint(&model, &logits, i) {
            let task = &model.tasks[head];
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
