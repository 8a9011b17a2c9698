//! A line for every image of a data set.

use crate::{Args, choice};
use zipit_artifact::atomic;
use zipit_artifact::model::ModelFile;
use zipit_data::Split;
use zipit_stage::images::ImageArgs;
use zipit_stage::{Format, Stage, Table};

pub fn predict(args: &Args, stage: &Stage, file: &ModelFile) -> anyhow::Result<()> {
    let model = &file.model;
    let chosen = ImageArgs {
        data: args.data.clone(),
        split: args.split,
        images: None,
        classes: vec![],
        seed: 0,
        batch_size: args.batch_size,
    };
    // Of whichever class: what an image shows is what is asked for.
    let set = chosen.choose(&[], Split::Test)?.as_stored();
    let told = format!("{} {} images", set.len(), set.split);
    if args.common.dry_run {
        return stage.print(&format!("would predict {told}\n"));
    }
    let logits = args.logits(stage, file, &set.batches(&model.preprocess, args.batch_size(file)?, None))?;
    let mut headers = vec!["image".to_owned(), "class".to_owned()];
    headers.extend(model.tasks.iter().flat_map(|task| [task.name.clone(), format!("{} probability", task.name)]));
    if model.joint.is_some() {
        headers.extend(["joint task".to_owned(), "joint class".to_owned()]);
    }
    let mut table = Table::new(headers);
    for (i, (name, class)) in set.names().zip(set.class_names()).enumerate() {
        let mut row = vec![name, class.to_owned()];
        for (task, logits) in model.tasks.iter().zip(&logits) {
            let (best, probability) = choice::best(logits.row(i));
            row.extend([task.classes[best].clone(), format!("{probability:.6}")]);
        }
        if let Some((head, class)) = choice::joint(model, &logits, i) {
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
