//! Flags of the rules: which belong to which, and what they are where they are not given.

use clap::{Args, ValueEnum};
use std::path::PathBuf;
use zipit::task_vector::{Disjoint, Kernels, Recipe, Rescale, Rule, Scope, Stop};
use zipit_stage::Usage;

/// The rule and its numbers.
#[derive(Debug, Args)]
#[command(next_help_heading = "Rule")]
pub struct RuleArgs {
    /// How the networks become one; θ₀ is the base, τ a fine-tune's difference to it
    #[arg(long, value_enum)]
    pub rule: RuleName,
    /// What each network counts, in their order [default: 1 each]
    #[arg(long, value_name = "W,…", value_delimiter = ',', allow_negative_numbers = true)]
    pub weights: Vec<f64>,
    /// λ: what the merged task vector is multiplied by [default: 0.3 where vectors are added, else 1]
    #[arg(long, value_name = "λ", allow_negative_numbers = true)]
    pub scale: Option<f64>,
    /// ties, dare, breadcrumbs: the share of a task vector's entries that is left [default: 0.2; dare 0.1; breadcrumbs 0.9]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    pub density: Option<f64>,
    /// ties: over what entries are compared
    #[arg(long, value_enum, default_value_t = ScopeName::All)]
    pub trim_scope: ScopeName,
    /// ties, dare-ties: how entries that agree in sign are merged
    #[arg(long, value_enum, default_value_t = DisjointName::Mean)]
    pub disjoint: DisjointName,
    /// dare, dare-ties: by what the entries that are left are multiplied
    #[arg(long, value_enum, default_value_t = RescaleName::Density)]
    pub rescale: RescaleName,
    /// dare, dare-ties: seed of the generator that drops entries
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// breadcrumbs: the share of the largest entries that is dropped, too
    #[arg(long, value_name = "SHARE", default_value_t = 0.01, allow_negative_numbers = true)]
    pub gamma: f64,
    /// slerp: how far from the first network to the second
    #[arg(long, default_value_t = 0.5, allow_negative_numbers = true)]
    pub t: f64,
    /// iso-cts: the share of directions that are common to all
    #[arg(long, value_name = "SHARE", default_value_t = 0.8, allow_negative_numbers = true)]
    pub common: f64,
    /// fisher, regmean, mats: what `collect` measured of the networks (--fisher; --gram own; --gram own --gradients), in one file
    /// for all, or one for each
    #[arg(long, value_name = "STATS", num_args = 1..)]
    pub stats: Vec<PathBuf>,
    /// fisher: divide each network's Fisher information by its norm, so that none outweighs the others as a whole
    #[arg(long)]
    pub normalize: bool,
    /// regmean: what off-diagonal entries of the second moments are multiplied by
    #[arg(long, value_name = "α", default_value_t = 0.9, allow_negative_numbers = true)]
    pub off_diagonal: f64,
    /// mats: the most iterations of conjugate gradients
    #[arg(long, default_value_t = 100)]
    pub iterations: usize,
    /// mats: the share of the residual at which they end
    #[arg(long, value_name = "SHARE", default_value_t = 1e-6, allow_negative_numbers = true)]
    pub tolerance: f64,
    /// iso-c, iso-cts, tsv-m: what is made of convolutions' kernels
    #[arg(long, value_enum, default_value_t = KernelsName::Matrix)]
    pub kernels: KernelsName,
    /// emr: of what the rescalers are quotients
    #[arg(long, value_enum, default_value_t = RescalersName::Entries)]
    pub rescalers: RescalersName,
}

/// The rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RuleName {
    /// The mean of the weights
    Average,
    /// The arc between two networks, tensor by tensor
    Slerp,
    /// θ₀ + λ Σ τ
    TaskArithmetic,
    /// Trim, elect signs, merge what agrees
    Ties,
    /// Drop entries at random, rescale, add
    Dare,
    /// Drop entries at random, rescale, elect signs, merge what agrees
    DareTies,
    /// Drop the smallest and the very largest entries, add
    Breadcrumbs,
    /// The mean, as far from the base as the angle between task vectors says
    ModelStock,
    /// All directions of the sum, equally strong
    IsoC,
    /// Directions of the sum, and of what every task has beside them, equally strong
    IsoCts,
    /// The first directions of every task, made orthogonal
    TsvM,
    /// The mean, every number by what the networks' predictions depend on
    Fisher,
    /// The layers that do to what each network's layers read what those do
    Regmean,
    /// The same, by what the networks' predictions depend on
    Mats,
    /// One vector for all, a bit per entry and a factor for each: a file of masked networks, of which the task says which
    Emr,
}

/// `--trim-scope`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ScopeName {
    /// Of a tensor with each other (mergekit)
    Tensor,
    /// Of all tensors with each other (the paper)
    All,
}

/// `--disjoint`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DisjointName {
    /// Their mean (the paper)
    Mean,
    /// Their sum (`FusionBench`, `AdaMerging`)
    Sum,
}

/// `--rescale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RescaleName {
    /// 1/density (the paper)
    Density,
    /// So that the sum of a tensor's magnitudes stays
    L1,
    /// Nothing
    Off,
}

/// `--kernels`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KernelsName {
    /// A matrix, output channels by all the rest
    Matrix,
    /// The mean of the vectors
    Mean,
}

/// `--rescalers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RescalersName {
    /// Of sums over all entries (the paper)
    Entries,
    /// Of sums of tensors' means (the authors' code, `FusionBench`)
    Tensors,
}

impl RuleName {
    /// As `--rule` takes it.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// The flags that mean something to it.
    fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Average => &["weights"],
            Self::Slerp => &["t"],
            Self::TaskArithmetic => &["weights", "scale"],
            Self::Ties => &["weights", "scale", "density", "trim_scope", "disjoint"],
            Self::Dare => &["weights", "scale", "density", "rescale", "seed"],
            Self::DareTies => &["weights", "scale", "density", "rescale", "seed", "disjoint"],
            Self::Breadcrumbs => &["weights", "scale", "density", "gamma"],
            Self::ModelStock => &["scale"],
            Self::IsoC | Self::TsvM => &["weights", "scale", "kernels"],
            Self::IsoCts => &["weights", "scale", "kernels", "common"],
            Self::Fisher => &["weights", "stats", "normalize"],
            Self::Regmean => &["weights", "stats", "off_diagonal"],
            Self::Mats => &["weights", "scale", "stats", "iterations", "tolerance"],
            Self::Emr => &["rescalers"],
        }
    }
}

/// Every flag that belongs to some rules only.
const FLAGS: [&str; 16] = [
    "rescalers",
    "weights",
    "scale",
    "density",
    "trim_scope",
    "disjoint",
    "rescale",
    "seed",
    "gamma",
    "t",
    "common",
    "stats",
    "normalize",
    "off_diagonal",
    "iterations",
    "tolerance",
];

impl RuleArgs {
    /// What `n` networks are combined by; `None` for emr, which makes no network of them. `given` says which flags there were.
    ///
    /// # Errors
    /// Flags of another rule, weights of another number of networks, numbers out of their range.
    pub fn recipe(&self, n: usize, given: impl Fn(&str) -> bool) -> anyhow::Result<Option<Recipe>> {
        let own = self.rule.flags();
        if let Some(foreign) = FLAGS.iter().chain(&["kernels"]).find(|flag| given(flag) && !own.contains(flag)) {
            let [foreign, rule] = [foreign.replace('_', "-"), self.rule.name()];
            return Err(Usage(format!("--{foreign} means nothing to --rule {rule}")).into());
        }
        if !self.weights.is_empty() && self.weights.len() != n {
            let k = self.weights.len();
            return Err(Usage(format!("--weights gives {k} numbers for {n} networks: one each")).into());
        }
        let disjoint = match self.disjoint {
            DisjointName::Mean => Disjoint::Mean,
            DisjointName::Sum => Disjoint::Sum,
        };
        let kernels = match self.kernels {
            KernelsName::Matrix => Kernels::Matrix,
            KernelsName::Mean => Kernels::Mean,
        };
        let density = |default: f64| self.density.unwrap_or(default);
        let dare = |elect| Rule::Dare {
            density: density(0.1),
            rescale: match self.rescale {
                RescaleName::Density => Rescale::Density,
                RescaleName::L1 => Rescale::L1,
                RescaleName::Off => Rescale::Off,
            },
            seed: self.seed,
            elect,
        };
        let rule = match self.rule {
            RuleName::Average => Rule::Average,
            RuleName::Slerp => Rule::Slerp { t: self.t },
            RuleName::TaskArithmetic => Rule::TaskArithmetic,
            RuleName::Ties => {
                let scope = match self.trim_scope {
                    ScopeName::Tensor => Scope::Tensor,
                    ScopeName::All => Scope::All,
                };
                Rule::Ties { density: density(0.2), scope, disjoint }
            }
            RuleName::Dare => dare(None),
            RuleName::DareTies => dare(Some(disjoint)),
            RuleName::Breadcrumbs => Rule::Breadcrumbs { density: density(0.9), gamma: self.gamma },
            RuleName::ModelStock => Rule::ModelStock,
            RuleName::IsoC => Rule::IsoC { kernels },
            RuleName::IsoCts => Rule::IsoCts { common: self.common, kernels },
            RuleName::TsvM => Rule::TsvM { kernels },
            RuleName::Fisher => Rule::Fisher,
            RuleName::Regmean => Rule::RegMean { off_diagonal: self.off_diagonal },
            RuleName::Mats => Rule::Mats { stop: Stop { n_iterations: self.iterations, tolerance: self.tolerance } },
            RuleName::Emr => return Ok(None),
        };
        if rule.takes_measured() && self.stats.is_empty() {
            let rule = self.rule.name();
            return Err(
                Usage(format!("--rule {rule} weighs by what was measured: give --stats, from `collect`")).into()
            );
        }
        let weights = if self.weights.is_empty() { vec![1.0; n] } else { self.weights.clone() };
        let recipe = Recipe { rule, weights, scale: self.scale.unwrap_or_else(|| usual_scale(rule)) };
        recipe.check()?;
        Ok(Some(recipe))
    }
}

/// The papers'.
fn usual_scale(rule: Rule) -> f64 {
    match rule {
        Rule::TaskArithmetic
        | Rule::Mats { .. }
        | Rule::Breadcrumbs { .. }
        | Rule::Ties { disjoint: Disjoint::Sum, .. }
        | Rule::Dare { elect: None | Some(Disjoint::Sum), .. } => 0.3,
        _ => 1.0,
    }
}

/// What was taken, in words.
pub fn told(recipe: &Recipe) -> String {
    let disjoint = |disjoint: Disjoint| match disjoint {
        Disjoint::Mean => "mean of what agrees in sign",
        Disjoint::Sum => "sum of what agrees in sign",
    };
    let mut said: Vec<String> = match recipe.rule {
        Rule::Average | Rule::TaskArithmetic | Rule::ModelStock | Rule::Fisher => vec![],
        Rule::RegMean { off_diagonal } => vec![format!("off-diagonals × {off_diagonal}")],
        Rule::Mats { stop } => vec![format!(
            "conjugate gradients from task arithmetic, {} iterations or {:e} of the residual",
            stop.n_iterations, stop.tolerance
        )],
        Rule::Slerp { t } => vec![format!("t = {t}")],
        Rule::Ties { density, scope, disjoint: how } => {
            let scope = if scope == Scope::All { "over all tensors" } else { "within each tensor" };
            vec![format!("density {density} {scope}"), disjoint(how).to_owned()]
        }
        Rule::Dare { density, elect, .. } => {
            let how = elect.map(|how| disjoint(how).to_owned());
            std::iter::once(format!("density {density} at random")).chain(how).collect()
        }
        Rule::Breadcrumbs { density, gamma } => vec![format!("density {density} below the largest {gamma}")],
        Rule::IsoC { kernels } | Rule::TsvM { kernels } | Rule::IsoCts { kernels, .. } => {
            let common = if let Rule::IsoCts { common, .. } = recipe.rule { Some(common) } else { None };
            let kernels = if kernels == Kernels::Matrix { "kernels as matrices" } else { "mean of kernels" };
            common
                .map(|common| format!("{common} of the directions common"))
                .into_iter()
                .chain([kernels.to_owned()])
                .collect()
        }
    };
    if recipe.weights.windows(2).any(|pair| pair[0].total_cmp(&pair[1]).is_ne()) {
        let weights: Vec<String> = recipe.weights.iter().map(ToString::to_string).collect();
        said.push(format!("weights {}", weights.join(", ")));
    }
    if recipe.rule.takes_base() {
        said.push(format!("λ = {}", recipe.scale));
    }
    said.join("; ")
}
