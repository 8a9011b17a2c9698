//! From flags to the matching and the unmerge rule.

use anyhow::bail;
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use zipit::matching::{Method, Similarity, Solver};
use zipit::plan::PlanSettings;
use zipit::unmerge::UnmergeRule;
use zipit_stage::Usage;

/// How features are matched and come back.
#[derive(Debug, Args)]
pub struct MethodArgs {
    /// How features are matched
    #[arg(long, value_enum, default_value_t = MethodName::Ward)]
    pub method: MethodName,
    /// zip: each merge multiplies the new group's similarities by it [default: 1]
    #[arg(long, allow_negative_numbers = true)]
    alpha: Option<f32>,
    /// zip: share of the removals that a model may spend within itself, 0 to 1 [default: 1]
    #[arg(long, allow_negative_numbers = true)]
    beta: Option<f32>,
    /// ward, average: what two features are compared by [default: importance where it was collected, else correlation]
    #[arg(long, value_enum)]
    similarity: Option<SimilarityName>,
    /// mudsc: share of the weights in the similarity, 0 (activations only) to 1 [default: 0.5]
    #[arg(long, allow_negative_numbers = true)]
    rho: Option<f64>,
    /// mudsc: what solves each merge point [default: permute]
    #[arg(long, value_enum)]
    solver: Option<SolverName>,
    /// cca: regularisation of the covariances, in units of a feature's mean variance [default: 10]
    #[arg(long, allow_negative_numbers = true)]
    gamma: Option<f64>,
    /// kmeans, random, weight, mudsc: seed [default: 0]
    #[arg(long)]
    seed: Option<u64>,
    /// weight, mudsc: the models that the stats were collected from, in that order
    #[arg(long, value_name = "MODEL", num_args = 2..)]
    pub models: Vec<PathBuf>,
    /// How every model's features come back from the merged ones
    #[arg(long, value_enum, default_value_t = UnmergeName::Covariance)]
    unmerge: UnmergeName,
    /// covariance: ridge in units of the mean energy of a merged feature [default: 0.001]
    #[arg(long, allow_negative_numbers = true)]
    ridge: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MethodName {
    /// Greedy, within and across models (ZipIt!)
    Zip,
    /// Agglomeration with Ward's linkage
    Ward,
    /// Agglomeration with average linkage
    Average,
    /// One feature kept of every group, by what the others lose in the logits; whole blocks (attention heads, grouped
    /// convolutions) are averaged, as by ward. Needs `collect --importance`; slow where features are thousands
    Select,
    /// k-means on correlations
    Kmeans,
    /// Optimal one-to-one assignment onto the first model (activation matching of Git Re-Basin)
    Permute,
    /// Git Re-Basin's weight matching: needs no images, but the models
    Weight,
    /// Weights and activations together (`MuDSC`); needs the models
    Mudsc,
    /// CCA-Merge: linear maps instead of groups
    Cca,
    /// The best pairing of all features of two models; slow
    Optimal,
    /// Feature j with feature j: weight averaging
    Identity,
    /// For debugging: a random permutation
    Random,
    /// For debugging: every feature joins its nearest of the first model
    First,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SimilarityName {
    Correlation,
    Covariance,
    /// Uncentred second moments
    Moments,
    /// Covariances in units of what a change does to the logits; features then count by that in their groups
    Importance,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SolverName {
    Permute,
    /// With --alpha and --beta
    Zip,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum UnmergeName {
    /// The authors': every member of a group is given the group's value
    Pinv,
    /// Best linear reconstruction of every model's features
    Covariance,
}

/// λ of the covariance unmerge: small beside the features' energy, large beside the rounding of the moments.
const RIDGE: f64 = 1e-3;

/// γ of CCA-Merge, the best of 0.001 to 1,000 on the demo's validation split: less amplifies faint directions.
const GAMMA: f64 = 10.0;

impl MethodArgs {
    /// The settings for statistics that hold the importance of features, or do not.
    ///
    /// # Errors
    /// Values out of range; importance that was not measured.
    pub fn settings(&self, importance: bool) -> anyhow::Result<PlanSettings> {
        let similarity = match self.similarity {
            None | Some(SimilarityName::Importance) if importance => Similarity::Importance,
            Some(SimilarityName::Importance) => {
                bail!("the statistics hold no importance: collect them with --importance, or compare by correlation")
            }
            None | Some(SimilarityName::Correlation) => Similarity::Correlation,
            Some(SimilarityName::Covariance) => Similarity::Covariance,
            Some(SimilarityName::Moments) => Similarity::Moments,
        };
        let (alpha, beta) = (self.alpha.unwrap_or(1.0), self.beta.unwrap_or(1.0));
        let seed = self.seed.unwrap_or(0);
        let method = match self.method {
            MethodName::Zip => Method::Zip { alpha, beta },
            MethodName::Ward => Method::Ward { similarity },
            MethodName::Average => Method::Average { similarity },
            MethodName::Select if !importance => {
                bail!(
                    "the statistics hold no importance, by which features are selected: collect them with --importance"
                )
            }
            MethodName::Select => Method::Select,
            MethodName::Kmeans => Method::Kmeans { seed },
            MethodName::Permute => Method::Permute,
            MethodName::Weight => Method::Weight { seed },
            MethodName::Mudsc => {
                let solver = match self.solver {
                    None | Some(SolverName::Permute) => Solver::Permute,
                    Some(SolverName::Zip) => Solver::Zip { alpha, beta },
                };
                Method::Mudsc { rho: self.rho.unwrap_or(0.5), solver, seed }
            }
            MethodName::Cca => Method::Cca { gamma: self.gamma.unwrap_or(GAMMA) },
            MethodName::Optimal => Method::Optimal,
            MethodName::Identity => Method::Identity,
            MethodName::Random => Method::Random { seed },
            MethodName::First => Method::First,
        };
        method.validate()?;
        let unmerge = match self.unmerge {
            UnmergeName::Pinv => UnmergeRule::Pinv,
            UnmergeName::Covariance => UnmergeRule::Covariance { ridge: self.ridge.unwrap_or(RIDGE) },
        };
        unmerge.validate()?;
        Ok(PlanSettings { method, unmerge })
    }

    /// A flag that the method does not know is a mistake, not something to be overlooked.
    ///
    /// # Errors
    /// Flags that do not belong together.
    pub fn check_flags(&self) -> anyhow::Result<()> {
        use MethodName::{Average, Cca, Kmeans, Mudsc, Random, Select, Ward, Weight, Zip};
        let by_zip = matches!(self.solver, Some(SolverName::Zip));
        let is = |names: &[MethodName]| names.contains(&self.method);
        let with_models = is(&[Weight, Mudsc]);
        for (given, fits, text) in [
            (
                self.alpha.is_some() || self.beta.is_some(),
                is(&[Zip]) || by_zip,
                "--alpha and --beta belong to --method zip",
            ),
            (self.similarity.is_some(), is(&[Ward, Average]), "--similarity belongs to --method ward and average"),
            (self.rho.is_some() || self.solver.is_some(), is(&[Mudsc]), "--rho and --solver belong to --method mudsc"),
            (self.gamma.is_some(), is(&[Cca]), "--gamma belongs to --method cca"),
            (
                self.seed.is_some(),
                is(&[Kmeans, Random, Weight, Mudsc]),
                "--seed belongs to kmeans, random, weight, mudsc",
            ),
            (!self.models.is_empty(), with_models, "--models belongs to --method weight and mudsc"),
            (
                matches!(self.unmerge, UnmergeName::Pinv),
                !is(&[Select]),
                "--method select leaves one feature of a group, from which --unmerge pinv cannot make the others: leave \
                 --unmerge at covariance",
            ),
            (
                self.ridge.is_some(),
                matches!(self.unmerge, UnmergeName::Covariance),
                "--ridge belongs to --unmerge covariance",
            ),
        ] {
            if given && !fits {
                return Err(Usage(text.to_owned()).into());
            }
        }
        if with_models && self.models.is_empty() {
            return Err(Usage("weights are compared: give the models with --models".to_owned()).into());
        }
        Ok(())
    }
}
