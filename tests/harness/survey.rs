//! What is asked of every network that PyTorch exported: merged with a permuted copy of itself it is itself, and merged
//! with another one it runs.

use crate::{Workplace, permuted};
use ndarray::ArrayD;
use zipit::Model;
use zipit_artifact::header::Provenance;
use zipit_artifact::model;

/// A network merged with a permuted copy of itself.
#[derive(Debug)]
pub struct WithCopy {
    /// The network, its `BatchNorm`s' statistics those of the images.
    pub network: Model,
    /// The largest |Δlogit| of both heads, relative to the network's largest logit.
    pub difference: f32,
    /// FLOPs of the merged network, in those of one.
    pub flops: f64,
}

impl Workplace {
    /// Merges `NAME.safetensors`, whose task is `first`, with a permuted copy of itself, on images of `data/`.
    ///
    /// # Errors
    /// What the stage that fails says.
    pub fn merge_with_copy(&self, name: &str, n_images: usize) -> Result<WithCopy, String> {
        // Statistics of the images, as in a trained network: otherwise deep features are dead, and no twin can be told.
        self.attempt("recalibrate", &format!("{name}.safetensors --data data --images {n_images} -o a.safetensors"))?;
        let read =
            |name: &str| model::read(&self.path(name)).map(|file| file.model).map_err(|e| format!("{name}: {e:#}"));
        let network = read("a.safetensors")?;
        let mut copy = permuted(&network, 7);
        "copy".clone_into(&mut copy.tasks[0].name);
        model::write(&self.path("copy.safetensors"), &copy, &Provenance::default()).map_err(|e| format!("{e:#}"))?;
        self.attempt(
            "collect",
            &format!("a.safetensors copy.safetensors --data data --images {n_images} -o copies.h5"),
        )?;
        self.attempt("match", "copies.h5 --method permute --unmerge pinv -o copies.bin")?;
        self.attempt("apply", "copies.bin a.safetensors copy.safetensors -o same.safetensors")?;
        self.attempt(
            "eval",
            &format!(
                "a.safetensors same.safetensors --data data --split train --images {n_images} --logits logits.safetensors"
            ),
        )?;
        let logits =
            model::read_foreign_safetensors(&self.path("logits.safetensors")).map_err(|e| format!("{e:#}"))?.weights;
        let original = &logits["a/first"];
        let off = ["same/first", "same/copy"].map(|head| largest(&(&logits[head] - original)));
        let one = network.graph.cost().map_err(|e| e.to_string())?.macs;
        let merged = read("same.safetensors")?.graph.cost().map_err(|e| e.to_string())?.macs;
        // A wide network's files are gigabytes, and several tests run at once.
        for file in ["copy.safetensors", "copies.h5", "copies.bin", "same.safetensors"] {
            std::fs::remove_file(self.path(file)).map_err(|e| format!("{file}: {e}"))?;
        }
        Ok(WithCopy { network, difference: off[0].max(off[1]) / largest(original), flops: merged as f64 / one as f64 })
    }

    /// Merges `one.safetensors` and `two.safetensors` into `zipped.safetensors`, measures its statistics anew and
    /// predicts numbers.
    ///
    /// # Errors
    /// What the stage that fails says.
    pub fn merge_two(&self, n_images: usize) -> Result<(), String> {
        self.attempt(
            "collect",
            &format!("one.safetensors two.safetensors --data data --images {n_images} -o stats.h5"),
        )?;
        self.attempt("match", "stats.h5 -o plan.bin")?;
        std::fs::remove_file(self.path("stats.h5")).map_err(|e| format!("stats.h5: {e}"))?;
        self.attempt("apply", "plan.bin one.safetensors two.safetensors -o zipped.safetensors")?;
        self.attempt(
            "recalibrate",
            &format!("zipped.safetensors --data data --images {n_images} -o merged.safetensors"),
        )?;
        self.attempt("predict", "merged.safetensors --data data -o predictions.csv")?;
        let predictions = std::fs::read_to_string(self.path("predictions.csv")).map_err(|e| e.to_string())?;
        if predictions.contains("NaN") { Err("predict: a probability is no number".to_owned()) } else { Ok(()) }
    }
}

fn largest(x: &ArrayD<f32>) -> f32 {
    // A NaN must not hide behind numbers.
    x.iter().fold(0.0, |m: f32, x| if x.is_nan() || m.is_nan() { f32::NAN } else { m.max(x.abs()) })
}
