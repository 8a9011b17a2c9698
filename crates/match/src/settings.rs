//! From flags to the matching and the unmerge rule.

use crate::Args;
use clap::ValueEnum;
use zipit::matching::Method;
use zipit::plan::PlanSettings;
use zipit::unmerge::UnmergeRule;
use zipit_stage::Usage;

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum MethodName {
    /// Greedy, within and across models (ZipIt!)
    Zip,
    /// Optimal one-to-one assignment onto the first model (Git Re-Basin)
    Permute,
    /// Feature j with feature j: weight averaging
    Identity,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum UnmergeName {
    /// The authors': every member of a group is given the group's value
    Pinv,
    /// Best linear reconstruction of every model's features
    Covariance,
}

/// λ of the covariance unmerge: small beside the features' energy, large beside the rounding of the moments.
const RIDGE: f64 = 1e-3;

/// # Errors
/// Flags that do not belong together, or values out of range.
pub fn settings(args: &Args) -> anyhow::Result<PlanSettings> {
    let method = match args.method {
        MethodName::Zip => Method::Zip { alpha: args.alpha.unwrap_or(1.0), beta: args.beta.unwrap_or(1.0) },
        name @ (MethodName::Permute | MethodName::Identity) => {
            if args.alpha.is_some() || args.beta.is_some() {
                return Err(Usage("--alpha and --beta belong to --method zip".to_owned()).into());
            }
            if matches!(name, MethodName::Permute) { Method::Permute } else { Method::Identity }
        }
    };
    method.validate()?;
    let unmerge = match args.unmerge {
        UnmergeName::Pinv => {
            if args.ridge.is_some() {
                return Err(Usage("--ridge belongs to --unmerge covariance".to_owned()).into());
            }
            UnmergeRule::Pinv
        }
        UnmergeName::Covariance => UnmergeRule::Covariance { ridge: args.ridge.unwrap_or(RIDGE) },
    };
    unmerge.validate()?;
    Ok(PlanSettings { method, unmerge })
}
