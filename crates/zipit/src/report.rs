//! What `eval` reports, and how logits become accuracies.
//!
//! Accuracies are shares in 0…1. Every function is pure: logits and labels in, counts out.

use crate::graph::Cost;
use crate::joint::{Joint, Rule, argmax};
use crate::{Error, Result, Task};
use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Standard normal quantile of a two-sided 95 % interval.
const Z_95: f64 = 1.959_963_984_540_054;

/// The table of one evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// What was evaluated on.
    pub data: Vec<DataUsed>,
    /// What a reader must know to repeat or to judge the numbers: seeds, images used, whether labels were.
    pub notes: Vec<String>,
    /// One per network, in the order asked for.
    pub rows: Vec<Row>,
}

/// A data set and the part of it that was used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataUsed {
    /// What the data set is called.
    pub name: String,
    /// BLAKE3 of its content, as the reader defines it.
    pub digest: String,
    /// `train`, `val` or `test`.
    pub split: String,
    /// Images used.
    pub n_images: u64,
}

/// What a row of the table is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowKind {
    /// A network as it was trained.
    Single,
    /// Several networks side by side, each with its own head.
    Ensemble,
    /// A merged network.
    Merged,
}

/// One network's results.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// What the network is called.
    pub model: String,
    /// What it is.
    pub kind: RowKind,
    /// The settings that made it, for people; empty where there are none.
    pub method: String,
    /// Its accuracies.
    pub scores: Scores,
    /// Multiply-adds, parameters and buffers; of an ensemble, of all members.
    pub cost: Cost,
    /// Multiply-adds in units of one source network; `None` where no source network is in the report.
    pub relative_macs: Option<f64>,
    /// Size of its file or files.
    pub file_bytes: u64,
    /// What it was made with.
    pub used: Used,
    /// Of a file of masked networks, how many there are: the task of every image must be known, and says which mask is put
    /// on. Its multiply-adds are one network's, its parameters what is stored, masks left out; it has no joint accuracy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masks: Option<u64>,
}

/// What making a network of others used; of a network that was trained, nothing is known but that.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "each is a column of its own")]
#[serde(deny_unknown_fields)]
pub struct Used {
    /// Unlabelled images of each stage that used some, in the order of the stages.
    pub images: Vec<StageImages>,
    /// Whether it was told from which task's data each image came.
    pub task_identity: bool,
    /// Class labels.
    pub labels: bool,
    /// Gradients by its weights.
    pub gradients: bool,
    /// Gradients of the networks' own logits by their own features.
    #[serde(default, skip_serializing_if = "is_false")]
    pub source_gradients: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_false(said: &bool) -> bool {
    !said
}

impl Used {
    /// Which gradients, in a word: `yes`, `sources` for those through the networks alone, `no`.
    ///
    /// ```
    /// use zipit::report::Used;
    /// assert_eq!(Used { source_gradients: true, ..Used::default() }.gradients_in_a_word(), "sources");
    /// ```
    #[must_use]
    pub fn gradients_in_a_word(&self) -> &'static str {
        match (self.gradients, self.source_gradients) {
            (true, _) => "yes",
            (false, true) => "sources",
            (false, false) => "no",
        }
    }
}

/// Images that one stage used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageImages {
    /// `collect`, `refit`, …
    pub stage: String,
    /// How many.
    pub n: u64,
}

/// The accuracies of one network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scores {
    /// One per output that the data can judge.
    pub tasks: Vec<TaskScore>,
    /// Mean of the tasks' accuracies.
    pub task_avg: f64,
    /// All heads together; `None` with one head, whose task it would repeat, and where the task must be known.
    pub joint: Option<JointScores>,
}

/// All heads together, by every [`Rule`] that the network has the numbers for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JointScores {
    /// Each head's own softmax.
    pub softmax: Score,
    /// A temperature and a bias per head.
    pub calibrated: Option<Score>,
    /// The gate.
    pub gate: Option<Score>,
    /// Images whose task the gate finds.
    pub task: Option<Score>,
}

/// One head on the images of its own task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskScore {
    /// The task's name.
    pub task: String,
    /// Its accuracy.
    pub score: Score,
    /// The same class by class, in logit order, of the classes that have images.
    pub classes: Vec<ClassScore>,
}

/// One class of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassScore {
    /// The class.
    pub class: String,
    /// Images classified correctly.
    pub n_correct: u64,
    /// Images.
    pub n: u64,
}

/// An accuracy and how sure one can be of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Score {
    /// Images classified correctly.
    pub n_correct: u64,
    /// Images.
    pub n: u64,
    /// `n_correct / n`.
    pub accuracy: f64,
    /// Lower end of the 95 % Wilson interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Score {
    /// The accuracy of `n_correct` of `n` images with its interval.
    ///
    /// # Errors
    /// Without images there is no accuracy, and more than all cannot be correct.
    pub fn new(n_correct: u64, n: u64) -> Result<Self> {
        if n == 0 {
            return Err(Error::Numbers("no image to score: none has a label among the network's classes".into()));
        }
        if n_correct > n {
            return Err(Error::Numbers(format!("{n_correct} of {n} images cannot be correct")));
        }
        let (low, high) = wilson(n_correct, n);
        Ok(Self { n_correct, n, accuracy: n_correct as f64 / n as f64, low, high })
    }
}

/// One output's logits, and what each of them means in the data set.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// `[n, classes]`.
    pub logits: ArrayView2<'a, f32>,
    /// The data set's label of each logit, `[classes]`; `None` where the data set has no such class.
    pub labels: &'a [Option<u32>],
}

/// The 95 % Wilson interval of a share: (p + z²/2n ± z·√(p(1−p)/n + z²/4n²)) / (1 + z²/n), within 0…1. It is honest
/// near 0 and 1, where the usual ± is not. Without samples it is everything.
///
/// ```
/// let (low, high) = zipit::report::wilson(5, 10);
/// assert!((low - 0.2366).abs() < 1e-4 && (high - 0.7634).abs() < 1e-4);
/// assert_eq!(zipit::report::wilson(0, 0), (0.0, 1.0));
/// ```
#[must_use]
pub fn wilson(n_correct: u64, n: u64) -> (f64, f64) {
    if n == 0 {
        return (0.0, 1.0);
    }
    let (p, m, zz) = (n_correct as f64 / n as f64, n as f64, Z_95 * Z_95);
    let centre = p + zz / (2.0 * m);
    let half = Z_95 * (p * (1.0 - p) / m + zz / (4.0 * m * m)).sqrt();
    let scale = 1.0 + zz / m;
    // At the ends the bound is 0 or 1 exactly, but for rounding.
    let low = if n_correct == 0 { 0.0 } else { ((centre - half) / scale).max(0.0) };
    let high = if n_correct >= n { 1.0 } else { ((centre + half) / scale).min(1.0) };
    (low, high)
}

/// The mean of the tasks' accuracies; `None` without tasks.
#[must_use]
pub fn task_average(tasks: &[TaskScore]) -> Option<f64> {
    (!tasks.is_empty()).then(|| tasks.iter().map(|t| t.score.accuracy).sum::<f64>() / tasks.len() as f64)
}

/// The data set's label of each of a task's classes, by name.
///
/// ```
/// use zipit::{Task, report::labels_of};
/// let task = Task { name: "t".into(), classes: vec!["cat".into(), "dog".into()] };
/// assert_eq!(labels_of(&task, &["dog".into(), "emu".into()]).unwrap(), [None, Some(0)]);
/// assert!(labels_of(&task, &["emu".into()]).is_err());
/// ```
///
/// # Errors
/// When the data set has none of the task's classes.
pub fn labels_of(task: &Task, data_classes: &[String]) -> Result<Vec<Option<u32>>> {
    let labels: Vec<Option<u32>> =
        task.classes.iter().map(|class| data_classes.iter().position(|c| c == class).map(|i| i as u32)).collect();
    if labels.iter().all(Option::is_none) {
        let some = |classes: &[String]| classes.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
        return Err(Error::Request(format!(
            "the data set has none of task `{}`'s classes: it has {} ({}, …), the task has {} ({}, …)",
            task.name,
            data_classes.len(),
            some(data_classes),
            task.classes.len(),
            some(&task.classes)
        )));
    }
    Ok(labels)
}

/// Per-task accuracy: the head's own argmax, on the images whose label is one of its classes. The lowest class wins a
/// tie.
///
/// # Errors
/// Logits that do not fit the labels or are not finite; no image of the task.
pub fn per_task(head: &Head<'_>, labels: &[u32]) -> Result<Score> {
    total(&per_class(head, labels)?)
}

/// All classes together.
fn total(counts: &[(u64, u64)]) -> Result<Score> {
    Score::new(counts.iter().map(|(n_correct, _)| n_correct).sum(), counts.iter().map(|(_, n)| n).sum())
}

/// For each class of the head, the images classified correctly and all its images.
fn per_class(head: &Head<'_>, labels: &[u32]) -> Result<Vec<(u64, u64)>> {
    check(head, labels)?;
    let mut counts = vec![(0, 0); head.labels.len()];
    for (logits, label) in head.logits.rows().into_iter().zip(labels) {
        if let Some(class) = head.labels.iter().position(|l| *l == Some(*label)) {
            counts[class].1 += 1;
            let found = argmax(logits.iter().map(|&x| f64::from(x)));
            counts[class].0 += u64::from(head.labels[found] == Some(*label));
        }
    }
    Ok(counts)
}

/// Joint accuracy: the classes of all heads side by side, scored by the rule of the image, argmax over all of them, on
/// the images whose label is a class of any head. Where heads share a class, its larger score counts; the first head
/// and the lowest class win a tie.
///
/// # Errors
/// Logits that do not fit the labels or are not finite; no image of any task.
pub fn joint<'a>(heads: &[Head<'_>], rule: impl Fn(usize) -> Rule<'a>, labels: &[u32]) -> Result<Score> {
    heads.iter().try_for_each(|head| check(head, labels))?;
    let known: BTreeSet<u32> = heads.iter().flat_map(|head| head.labels).flatten().copied().collect();
    let (mut n_correct, mut n) = (0, 0);
    for (i, label) in labels.iter().enumerate().filter(|(_, label)| known.contains(label)) {
        n += 1;
        let (head, class) = rule(i).choose(heads.iter().map(|head| head.logits.row(i)));
        n_correct += u64::from(heads[head].labels[class] == Some(*label));
    }
    Score::new(n_correct, n)
}

/// Share of the images whose largest gate logit is that of a head with the image's class.
fn task_found(heads: &[Head<'_>], gate: ArrayView2<'_, f32>, labels: &[u32]) -> Result<Score> {
    let (mut n_correct, mut n) = (0, 0);
    for (logits, label) in gate.rows().into_iter().zip(labels) {
        if heads.iter().any(|head| head.labels.contains(&Some(*label))) {
            n += 1;
            let found = argmax(logits.iter().map(|&x| f64::from(x)));
            n_correct += u64::from(heads[found].labels.contains(&Some(*label)));
        }
    }
    Score::new(n_correct, n)
}

/// All accuracies of one network: `tasks[t]` is the task of `heads[t]`; `calibration` is how its heads are compared and
/// its gate's logits, `[n, tasks]`, where it has any.
///
/// # Errors
/// As [`per_task`] and [`joint`]; tasks and heads of different number; a gate of other images.
pub fn score(
    tasks: &[Task],
    heads: &[Head<'_>],
    calibration: Option<(&Joint, Option<ArrayView2<'_, f32>>)>,
    labels: &[u32],
) -> Result<Scores> {
    let unequal = || Error::Request(format!("{} tasks for {} outputs", tasks.len(), heads.len()));
    if tasks.len() != heads.len() {
        return Err(unequal());
    }
    let scored: Vec<TaskScore> = tasks
        .iter()
        .zip(heads)
        .map(|(task, head)| {
            let named = |e: Error| Error::Numbers(format!("task `{}`: {e}", task.name));
            let counts = per_class(head, labels).map_err(named)?;
            let score = total(&counts).map_err(named)?;
            let classes = (task.classes.iter().zip(counts))
                .filter(|(_, (_, n))| *n > 0)
                .map(|(class, (n_correct, n))| ClassScore { class: class.clone(), n_correct, n })
                .collect();
            Ok(TaskScore { task: task.name.clone(), score, classes })
        })
        .collect::<Result<_>>()?;
    let task_avg = task_average(&scored).ok_or_else(unequal)?;
    if heads.len() < 2 {
        return Ok(Scores { tasks: scored, task_avg, joint: None });
    }
    let mut all =
        JointScores { softmax: joint(heads, |_| Rule::Softmax, labels)?, calibrated: None, gate: None, task: None };
    if let Some((calibration, gate)) = calibration {
        calibration.validate(heads.len())?;
        all.calibrated = Some(joint(heads, |_| Rule::Calibrated(&calibration.heads), labels)?);
        if let Some(gate) = gate {
            let expected = (labels.len(), heads.len());
            if gate.dim() != expected || gate.iter().any(|x| !x.is_finite()) {
                return Err(Error::Numbers(format!(
                    "the gate's logits are {:?}, expected finite {expected:?} (images, tasks)",
                    gate.dim()
                )));
            }
            all.gate = Some(joint(heads, |i| Rule::Gate(gate.row(i)), labels)?);
            all.task = Some(task_found(heads, gate, labels)?);
        }
    }
    let joint = Some(all);
    Ok(Scores { tasks: scored, task_avg, joint })
}

fn check(head: &Head<'_>, labels: &[u32]) -> Result<()> {
    let expected = (labels.len(), head.labels.len());
    if head.logits.dim() != expected {
        return Err(Error::Numbers(format!(
            "logits are {:?}, expected {:?} (images, classes)",
            head.logits.dim(),
            expected
        )));
    }
    match head.logits.rows().into_iter().position(|row| row.iter().any(|x| !x.is_finite())) {
        Some(i) => Err(Error::Numbers(format!("the logits of image {i} hold NaN or infinity"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp)]

    use super::*;
    use ndarray::{Array2, Axis, array};

    /// Two heads: classes 0, 1 and 2, 3.
    fn heads<'a>(a: &'a Array2<f32>, b: &'a Array2<f32>) -> [Head<'a>; 2] {
        [Head { logits: a.view(), labels: &[Some(0), Some(1)] }, Head { logits: b.view(), labels: &[Some(2), Some(3)] }]
    }

    #[test]
    fn per_task_looks_only_at_its_own_images() {
        let logits = array![[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 9.0]];
        let [head, _] = heads(&logits, &logits);
        // Labels 0, 1 and 1 are the task's; the second image is wrong.
        let score = per_task(&head, &[0, 1, 1, 2]).unwrap();
        assert_eq!((score.n_correct, score.n, score.accuracy), (2, 3, 2.0 / 3.0));
        assert!(per_task(&head, &[2, 2, 3, 3]).unwrap_err().to_string().contains("no image to score"));
    }

    #[test]
    fn joint_compares_probabilities_not_logits() {
        // Head A is sure by 2, head B by 1, though B's logits are larger.
        let a = array![[2.0, 0.0], [0.0, 0.5]];
        let b = array![[8.0, 9.0], [-3.0, -5.0]];
        assert_eq!(joint(&heads(&a, &b), |_| Rule::Softmax, &[0, 2]).unwrap().n_correct, 2);
        assert_eq!(joint(&heads(&a, &b), |_| Rule::Softmax, &[3, 1]).unwrap().n_correct, 0);
        // A label of no head is not counted.
        assert_eq!(joint(&heads(&a, &b), |_| Rule::Softmax, &[0, 7]).unwrap().n, 1);
    }

    #[test]
    fn ties_go_to_the_first() {
        let even = array![[1.0, 1.0], [3.0, 3.0]];
        assert_eq!(per_task(&heads(&even, &even)[0], &[0, 1]).unwrap().n_correct, 1);
        assert_eq!(joint(&heads(&even, &even), |_| Rule::Softmax, &[0, 2]).unwrap().n_correct, 1);
    }

    #[test]
    fn a_class_of_two_heads_counts_by_its_larger_probability() {
        let (a, b) = (array![[0.0, 1.0]], array![[5.0, 0.0]]);
        let shared = [
            Head { logits: a.view(), labels: &[Some(0), Some(1)] },
            Head { logits: b.view(), labels: &[Some(0), None] },
        ];
        assert_eq!(joint(&shared, |_| Rule::Softmax, &[0]).unwrap().n_correct, 1);
        // A class the data set has not can be predicted, and is then wrong.
        let unknown = [Head { logits: b.view(), labels: &[None, Some(0)] }];
        assert_eq!(per_task(&unknown[0], &[0]).unwrap().n_correct, 0);
    }

    #[test]
    fn scores_of_a_network_add_up() {
        let (a, b) = (array![[4.0, 0.0], [0.0, 1.0], [0.0, 0.0]], array![[0.0, 0.0], [0.0, 6.0], [0.0, 1.0]]);
        let tasks = ["low", "high"].map(|name| Task { name: name.into(), classes: vec!["p".into(), "q".into()] });
        let scores = score(&tasks, &heads(&a, &b), None, &[0, 1, 2]).unwrap();
        let counts: Vec<_> = scores.tasks.iter().map(|t| (t.score.n_correct, t.score.n)).collect();
        assert_eq!(counts, [(2, 2), (0, 1)]);
        let classes: Vec<_> = scores.tasks[0].classes.iter().map(|c| (c.class.as_str(), c.n_correct, c.n)).collect();
        assert_eq!(classes, [("p", 1, 1), ("q", 1, 1)]);
        // Class 3 has no image.
        assert_eq!(scores.tasks[1].classes.len(), 1);
        assert_eq!(scores.task_avg, 0.5);
        let joint = scores.joint.unwrap().softmax;
        assert_eq!((joint.n_correct, joint.n), (1, 3));
        assert_eq!(score(&tasks[..1], &heads(&a, &b)[..1], None, &[0, 1, 2]).unwrap().joint, None);
        assert!(score(&tasks[..1], &heads(&a, &b), None, &[0, 1, 2]).is_err());
        assert!(score(&[], &[], None, &[]).is_err());
    }

    #[test]
    fn a_gate_decides_between_heads_that_are_equally_sure() {
        use crate::joint::Calibration;
        let (a, b) = (array![[4.0, 0.0], [4.0, 0.0]], array![[4.0, 0.0], [4.0, 0.0]]);
        let tasks = ["low", "high"].map(|name| Task { name: name.into(), classes: vec!["p".into(), "q".into()] });
        let even = Calibration { temperature: 1.0, bias: 0.0 };
        let joint = Joint { heads: vec![even, Calibration { temperature: 1.0, bias: 0.5 }], gate: true };
        let gate = array![[2.0_f32, 0.0], [0.0, 2.0]];
        let scores = score(&tasks, &heads(&a, &b), Some((&joint, Some(gate.view()))), &[0, 2]).unwrap().joint.unwrap();
        assert_eq!(scores.softmax.n_correct, 1);
        assert_eq!(scores.calibrated.unwrap().n_correct, 1);
        assert_eq!((scores.gate.unwrap().n_correct, scores.task.unwrap().n_correct), (2, 2));
        let short = score(&tasks, &heads(&a, &b), Some((&joint, Some(gate.view().split_at(Axis(0), 1).0))), &[0, 2]);
        assert!(short.unwrap_err().to_string().contains("the gate's logits are (1, 2)"));
    }

    #[test]
    fn large_logits_do_not_overflow_and_bad_ones_are_refused() {
        let (a, b) = (array![[1e30, -1e30]], array![[3e38, 3e38]]);
        assert_eq!(joint(&heads(&a, &b), |_| Rule::Softmax, &[0]).unwrap().n_correct, 1);
        let nan = array![[f32::NAN, 0.0]];
        assert!(per_task(&heads(&nan, &a)[0], &[0]).unwrap_err().to_string().contains("image 0"));
        assert!(
            joint(&heads(&a, &b), |_| Rule::Softmax, &[0, 1])
                .unwrap_err()
                .to_string()
                .contains("(1, 2), expected (2, 2)")
        );
    }

    /// Newcombe 1998, table I: 81/263, 15/148, 0/20 and 1/29 by the score method.
    #[test]
    fn wilson_matches_published_intervals() {
        for ((r, n), (low, high)) in [
            ((81, 263), (0.2553, 0.3662)),
            ((15, 148), (0.0624, 0.1605)),
            ((0, 20), (0.0, 0.1611)),
            ((1, 29), (0.0061, 0.1718)),
        ] {
            let found = wilson(r, n);
            assert!((found.0 - low).abs() < 5e-5 && (found.1 - high).abs() < 5e-5, "{r}/{n}: {found:?}");
        }
        assert_eq!(wilson(20, 20).1, 1.0);
        assert_eq!(wilson(0, 20).0, 0.0);
        assert!(Score::new(3, 2).is_err());
    }
}
