//! What adapting came to.

use crate::Args;
use serde::{Deserialize, Serialize};
use zipit_stage::Table;
use zipit_torch::adapt::{Adapter, Judged};

/// What `--report` writes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdaptReport {
    /// Unlabelled images, those that were held out among them.
    pub n_images: u64,
    /// Held out.
    pub n_held_out: u64,
    /// Images of a step.
    pub batch_size: u64,
    /// Steps of an epoch.
    pub steps_per_epoch: u64,
    /// Steps that were planned.
    pub n_steps: u64,
    /// The highest learning rate.
    pub lr: f64,
    /// The held-out loss, from the network as it was given on.
    pub judged: Vec<Judgement>,
    /// Coefficients of the task vectors, task by task, if those were learned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub coefficients: Vec<Vec<f32>>,
}

/// The held-out loss at some step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Judgement {
    /// Steps done.
    pub step: u64,
    /// Σ over outputs of what `--objective` says.
    pub loss: f64,
    /// Whether this network was written.
    pub kept: bool,
}

impl AdaptReport {
    /// Of an adaptation that is done.
    pub fn of(adapter: &Adapter<'_>, n_images: usize) -> anyhow::Result<Self> {
        let best = adapter.best().map(|best| best.step);
        let judgement = |&Judged { step, loss }: &Judged| Judgement { step, loss, kept: Some(step) == best };
        let rows = adapter.coefficients()?;
        let rows = rows.iter().flat_map(|all| all.outer_iter());
        Ok(Self {
            n_images: n_images as u64,
            n_held_out: adapter.n_images()[1] as u64,
            batch_size: adapter.batch_size() as u64,
            steps_per_epoch: adapter.steps_per_epoch(),
            n_steps: adapter.steps()[1],
            lr: adapter.lr(),
            judged: adapter.judged().iter().map(judgement).collect(),
            coefficients: rows.map(|row| row.iter().copied().collect()).collect(),
        })
    }

    fn loss(&self, step: Option<u64>) -> Option<&Judgement> {
        self.judged.iter().rev().find(|judged| step.is_none_or(|step| judged.step == step))
    }

    /// The network before and after, and as it was last.
    pub fn table(&self, args: &Args) -> Table {
        let mut table = Table::new(["network", "epochs", "steps", "held-out loss"]);
        let mut row = |what: &str, judged: &Judgement| {
            let epochs = judged.step as f64 / self.steps_per_epoch.max(1) as f64;
            let loss = if self.n_held_out == 0 { "-".to_owned() } else { format!("{:.5}", judged.loss) };
            table.row([what.to_owned(), format!("{epochs:.1}"), judged.step.to_string(), loss]);
        };
        if let Some(first) = self.judged.first() {
            let given = match (args.from_scratch, &self.coefficients[..]) {
                (true, _) => "random",
                (false, []) => "as it was given",
                (false, _) => "with the first coefficients",
            };
            row(given, first);
        }
        if let Some(kept) = self.judged.iter().find(|judged| judged.kept) {
            row("written", kept);
        }
        if let Some(last) = self.loss(None).filter(|last| !last.kept) {
            row("last", last);
        }
        table
    }
}
