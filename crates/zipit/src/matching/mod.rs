//! Which features become one: a matching assigns each of the N·d joint features to one of d' groups.

pub mod blocks;
pub mod cca;
mod curve;
pub mod debug;
pub mod identity;
pub mod kmeans;
mod layout;
pub mod limits;
pub mod linkage;
mod living;
mod metric;
pub mod mudsc;
pub mod optimal;
pub mod oracle;
pub mod permute;
mod select;
pub mod weight;
pub mod zip;

use self::linkage::Linkage;
pub use self::mudsc::Solver;
use crate::watch::{Unwatched, Watch};
use crate::{Error, Observed, Result};
use living::{Living, cluster_features};
use ndarray::{Array2, Axis, CowArray, Ix2};
use serde::{Deserialize, Serialize};

/// A way to match features.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
pub enum Method {
    /// Greedy within and across models (paper, §4.1 and appendix): [`mod@zip`], defined by [`oracle`].
    Zip {
        /// α ≤ 1: each merge multiplies the new group's similarities by it; α ≤ 0 makes groups exclusive instead
        /// (see [`oracle::zip`]).
        alpha: f32,
        /// β in 0…1: share of the removals a model may spend within itself.
        beta: f32,
    },
    /// Optimal one-to-one assignment of each model onto the first: [`permute`].
    Permute,
    /// Feature j with feature j, weight averaging: [`identity`].
    Identity,
    /// Agglomeration by Ward's linkage: [`linkage::Linkage::Ward`].
    Ward {
        /// What the distances are made of.
        #[serde(default)]
        similarity: Similarity,
    },
    /// Agglomeration by average linkage: [`linkage::Linkage::Average`].
    Average {
        /// What the distances are made of.
        #[serde(default)]
        similarity: Similarity,
    },
    /// One feature kept of every group, by what the others then lose in the logits (`select.rs`). Needs importance.
    Select,
    /// k-means on the features scaled to variance one (paper, appendix): [`mod@kmeans`].
    Kmeans {
        /// Draws the first centres.
        seed: u64,
    },
    /// The best pairing of all features of two models, within and across them: [`optimal`].
    Optimal,
    /// Git Re-Basin's weight matching: [`mod@weight`]. Needs the models instead of their moments.
    Weight {
        /// Draws the order of the spaces.
        seed: u64,
    },
    /// Weights and activations together: [`mod@mudsc`]. Needs the models, too.
    Mudsc {
        /// ρ in 0…1, the share of the weights.
        rho: f64,
        /// What matches by the mixed similarity.
        solver: Solver,
        /// Draws the order of the points.
        seed: u64,
    },
    /// Linear maps instead of groups: [`mod@cca`].
    Cca {
        /// γ ≥ 0, the regularisation of the covariances.
        gamma: f64,
    },
    /// For debugging, each model onto the first by a random permutation: [`debug::random`].
    Random {
        /// Draws the permutations.
        seed: u64,
    },
    /// For debugging, each feature to the most correlated one of the first model: [`debug::first`].
    First,
}

/// How alike two features are: which matrix of their moments says so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Similarity {
    /// R: scale and mean do not count ([`Moments::correlation`](crate::Moments::correlation)).
    #[default]
    Correlation,
    /// Cov(z): the mean does not count ([`Moments::covariance`](crate::Moments::covariance)).
    Covariance,
    /// G = E\[zzᵀ\], uncentred ([`Moments::second_moment`](crate::Moments::second_moment)).
    Moments,
    /// Q: Cov(z) in units of what a change does to the logits ([`Importance::gram`](crate::Importance::gram)). Features
    /// then count in their groups by that, too.
    Importance,
}

impl Similarity {
    /// Those that the moments alone tell, the default first.
    pub const ALL: [Self; 3] = [Self::Correlation, Self::Covariance, Self::Moments];

    /// What the command line calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Correlation => "correlation",
            Self::Covariance => "covariance",
            Self::Moments => "moments",
            Self::Importance => "importance",
        }
    }

    /// S, `[N·d, N·d]`: the inner products of the features.
    ///
    /// ```
    /// use zipit::{Moments, matching::Similarity};
    /// // z = (x, 2x) for x = 1, 3.
    /// let m = Moments { count: 2, sum: vec![4.0, 8.0], outer: vec![10.0, 20.0, 40.0] };
    /// assert_eq!(Similarity::Correlation.gram(&m).unwrap(), ndarray::array![[1.0, 1.0], [1.0, 1.0]]);
    /// assert_eq!(Similarity::Covariance.gram(&m).unwrap(), ndarray::array![[1.0, 2.0], [2.0, 4.0]]);
    /// assert_eq!(Similarity::Moments.gram(&m).unwrap(), ndarray::array![[5.0, 10.0], [10.0, 20.0]]);
    /// ```
    ///
    /// # Errors
    /// [`Error::Request`] for importance that was not measured.
    pub fn gram<'a>(self, observed: impl Into<Observed<'a>>) -> Result<Array2<f64>> {
        let Observed { moments, importance, .. } = observed.into();
        Ok(match self {
            Self::Correlation => moments.correlation().mapv(f64::from),
            Self::Covariance => moments.covariance(),
            Self::Moments => moments.second_moment(),
            Self::Importance => importance.ok_or_else(unmeasured)?.gram(moments),
        })
    }
}

impl Method {
    /// What the command line calls it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Zip { .. } => "zip",
            Self::Permute => "permute",
            Self::Identity => "identity",
            Self::Ward { .. } => "ward",
            Self::Average { .. } => "average",
            Self::Select => "select",
            Self::Kmeans { .. } => "kmeans",
            Self::Optimal => "optimal",
            Self::Weight { .. } => "weight",
            Self::Mudsc { .. } => "mudsc",
            Self::Cca { .. } => "cca",
            Self::Random { .. } => "random",
            Self::First => "first",
        }
    }

    /// Whether it serves any 1 ≤ d' ≤ N·d, or only d' = d.
    #[must_use]
    pub fn serves_any_size(&self) -> bool {
        match self {
            Self::Zip { .. }
            | Self::Ward { .. }
            | Self::Average { .. }
            | Self::Select
            | Self::Kmeans { .. }
            | Self::Mudsc { solver: Solver::Zip { .. }, .. } => true,
            Self::Permute
            | Self::Identity
            | Self::Optimal
            | Self::Weight { .. }
            | Self::Mudsc { solver: Solver::Permute, .. }
            | Self::Cca { .. }
            | Self::Random { .. }
            | Self::First => false,
        }
    }

    /// Whether it takes the features' importance, by which they then count in their groups.
    #[must_use]
    pub fn weighs(&self) -> bool {
        const BY: Similarity = Similarity::Importance;
        matches!(self, Self::Select | Self::Ward { similarity: BY } | Self::Average { similarity: BY })
    }

    /// Checks the parameters.
    ///
    /// # Errors
    /// [`Error::Request`] for an α that is not finite or above 1, a β or ρ outside 0…1, or a negative γ.
    pub fn validate(&self) -> Result<()> {
        match *self {
            Self::Zip { alpha, .. } if !alpha.is_finite() || alpha > 1.0 => Err(Error::Request(format!(
                "alpha is {alpha}; it must be a number of at most 1 (1: no damping; 0 or less: exclusive groups)"
            ))),
            Self::Zip { beta, .. } if !(0.0..=1.0).contains(&beta) => {
                Err(Error::Request(format!("beta is {beta}; it must lie between 0 (no merges within a model) and 1")))
            }
            Self::Mudsc { rho, .. } if !(0.0..=1.0).contains(&rho) => Err(Error::Request(format!(
                "rho is {rho}; it must lie between 0 (activations only) and 1 (weights only)"
            ))),
            Self::Mudsc { solver: Solver::Zip { alpha, beta }, .. } => Self::Zip { alpha, beta }.validate(),
            Self::Cca { gamma } if !(gamma.is_finite() && gamma >= 0.0) => {
                Err(Error::Request(format!("gamma is {gamma}; it must be a number of at least 0")))
            }
            Self::Weight { .. }
            | Self::Mudsc { .. }
            | Self::Cca { .. }
            | Self::Zip { .. }
            | Self::Permute
            | Self::Identity
            | Self::Ward { .. }
            | Self::Average { .. }
            | Self::Select
            | Self::Kmeans { .. }
            | Self::Optimal
            | Self::Random { .. }
            | Self::First => Ok(()),
        }
    }
}

/// Groups of joint features at one merge point.
#[derive(Debug, Clone, PartialEq)]
pub struct Matching {
    /// Group of each joint feature, `[N·d]`, numbered in the order of each group's lowest feature.
    pub assignment: Vec<u32>,
    /// d'.
    pub n_groups: usize,
    /// The merges in the order in which they were made, each as the lowest features (i, j) of the two groups, i < j.
    /// There are N·d − d' of them and they determine the assignment.
    pub merges: Vec<(u32, u32)>,
    /// Whether the limits on merging (caps within a model; exclusive groups at α ≤ 0) had to be lifted to reach d'.
    pub caps_lifted: bool,
    /// What each joint feature counts in its group, `[N·d]` ≥ 0, where the method says so.
    pub weights: Option<Vec<f32>>,
}

impl Matching {
    /// The matching that a list of merges makes of `n_joint` single features.
    ///
    /// ```
    /// let matching = zipit::matching::Matching::from_merges(4, vec![(1, 3), (0, 1)], false);
    /// assert_eq!(matching.assignment, [0, 0, 1, 0]);
    /// ```
    ///
    /// # Panics
    /// When a merge is not a pair i < j < `n_joint` of features that still lead their groups.
    #[must_use]
    pub fn from_merges(n_joint: usize, merges: Vec<(u32, u32)>, caps_lifted: bool) -> Self {
        let mut merged_into: Vec<Option<u32>> = vec![None; n_joint];
        for &(i, j) in &merges {
            let leads = |k: u32| merged_into[k as usize].is_none();
            assert!(i < j && leads(i) && leads(j), "merge ({i}, {j}) is not of two groups by their lowest features");
            merged_into[j as usize] = Some(i);
        }
        let mut assignment: Vec<u32> = Vec::with_capacity(n_joint);
        let mut n_groups = 0;
        for lower in merged_into {
            assignment.push(lower.map_or(n_groups, |i| assignment[i as usize]));
            n_groups += u32::from(lower.is_none());
        }
        Self { assignment, n_groups: n_groups as usize, merges, caps_lifted, weights: None }
    }

    /// The matching of an assignment that numbers its groups in the order of their lowest features: every other
    /// member joins the lowest one, in feature order.
    fn from_assignment(assignment: &[u32]) -> Self {
        let mut lowest: Vec<u32> = Vec::new();
        let mut merges = Vec::new();
        for (k, &group) in (0..).zip(assignment) {
            match lowest.get(group as usize) {
                Some(&i) => merges.push((i, k)),
                None => lowest.push(k),
            }
        }
        Self::from_merges(assignment.len(), merges, false)
    }

    /// The matching of groups numbered in any way.
    fn from_groups(group: &[u32]) -> Self {
        let n_numbers = group.iter().max().map_or(0, |&g| g as usize + 1);
        let mut number: Vec<Option<u32>> = vec![None; n_numbers];
        let mut n_groups = 0;
        let assignment: Vec<u32> = group
            .iter()
            .map(|&g| {
                *number[g as usize].get_or_insert_with(|| {
                    n_groups += 1;
                    n_groups - 1
                })
            })
            .collect();
        Self::from_assignment(&assignment)
    }
}

/// Matches the joint features that were `observed` (N·d of `n_models` = N models) into `n_groups` = d' groups.
///
/// `zip`, `ward`, `average` and `kmeans` take any 1 ≤ d' ≤ N·d; the others know only d' = d, `optimal` also only N = 2.
/// [Constant](crate::constants) features take no place of others: the first four cluster only those that vary, `permute`
/// and `optimal` know that a pair with a constant costs nothing.
///
/// # Errors
/// [`Error::Request`] for parameters or a d' that the method cannot serve, [`Error::Numbers`] for moments without
/// samples, with NaN or infinity, or of a number of features that N does not divide.
pub fn match_features<'a>(
    method: &Method,
    observed: impl Into<Observed<'a>>,
    n_models: usize,
    n_groups: usize,
) -> Result<Matching> {
    match_watched(method, observed, n_models, n_groups, &Unwatched)
}

/// As [`match_features`]; `select`, which takes long where features are many, can be interrupted.
///
/// # Errors
/// As [`match_features`]; [`Error::Interrupted`].
pub fn match_watched<'a>(
    method: &Method,
    observed: impl Into<Observed<'a>>,
    n_models: usize,
    n_groups: usize,
    watch: &dyn Watch,
) -> Result<Matching> {
    let observed = observed.into();
    let Observed { moments, constants, .. } = &observed;
    method.validate()?;
    moments.validate("moments")?;
    let n_joint = moments.n_joint();
    if n_models < 2 {
        return Err(Error::Request(format!("matching needs the features of at least 2 models, not of {n_models}")));
    }
    if n_joint == 0 || !n_joint.is_multiple_of(n_models) {
        return Err(Error::Numbers(format!("{n_joint} joint features cannot be those of {n_models} models alike")));
    }
    if constants.n_joint() != n_joint {
        return Err(Error::Numbers(format!("{n_joint} joint features, but constants of {}", constants.n_joint())));
    }
    let d = n_joint / n_models;
    if n_groups == 0 || n_groups > n_joint {
        return Err(Error::Request(format!(
            "{n_groups} groups asked for; {n_models} models of {d} features make 1 to {n_joint} groups"
        )));
    }
    if !method.serves_any_size() && n_groups != d {
        return Err(Error::Request(format!(
            "method `{}` always makes d' = d = {d} groups, not {n_groups}: use `zip`, `ward`, `average`, `select` or `kmeans` \
             to keep more or fewer features",
            method.name()
        )));
    }
    let clustered = |clustering: &dyn Fn(&Living<'_>) -> Result<Matching>| {
        cluster_features(constants, n_models, n_groups, true, clustering)
    };
    let correlation = || told_apart(constants.correlation(moments), &observed, n_models);
    let linked = |similarity: Similarity, linkage| {
        let gram = inner_products(similarity, &observed, n_models)?;
        clustered(&|of| Ok(linkage::linkage(among(&gram, of).view(), of.n_groups, linkage)))
    };
    Ok(match *method {
        Method::Zip { alpha, beta } => {
            let r = correlation();
            clustered(&|of| Ok(zip::zip_of(among(&r, of).view(), of.sizes, of.n_groups, alpha, beta)))?
        }
        Method::Permute => permute::permute_onto(pairing(&observed, n_models).view(), n_models, |k| constants.rests(k)),
        Method::Identity => identity::identity(d, n_models),
        Method::Ward { similarity } => linked(similarity, Linkage::Ward)?,
        Method::Average { similarity } => linked(similarity, Linkage::Average)?,
        Method::Select => {
            let gram = inner_products(Similarity::Importance, &observed, n_models)?;
            let importance = observed.importance.ok_or_else(unmeasured)?;
            clustered(&|of| select::select(importance, moments, of, among(&gram, of).view(), watch))?
        }
        Method::Kmeans { seed } => {
            let r = correlation();
            clustered(&|of| Ok(kmeans::kmeans(among(&r, of).view(), of.n_groups, seed)))?
        }
        Method::Optimal => {
            optimal::check_request(n_models, n_joint)?;
            optimal::optimal(pairing(&observed, n_models).view())
        }
        Method::Random { seed } => debug::random(d, n_models, seed),
        Method::Weight { .. } | Method::Mudsc { .. } | Method::Cca { .. } => {
            return Err(Error::Request(format!(
                "method `{}` does not group the features of one merge point by their moments",
                method.name()
            )));
        }
        Method::First => debug::first(pairing(&observed, n_models).view(), n_models),
    })
}

/// What a method that [weighs](Method::weighs) loses with 1, 2, …, N·d groups, `[N·d]`: what the best linear reconstruction
/// of the features from the groups' averages (`curve.rs`), or from those that are kept (`select.rs`, before swaps), leaves in
/// the squared logits.
///
/// # Errors
/// As [`match_features`]; importance that was not measured; other methods; [`Error::Interrupted`].
pub fn losses<'a>(
    method: &Method,
    observed: impl Into<Observed<'a>>,
    n_models: usize,
    watch: &dyn Watch,
) -> Result<Vec<f64>> {
    let observed = observed.into();
    observed.moments.validate("moments")?;
    if !method.weighs() {
        return Err(Error::Request(format!("method `{}` does not say what the logits lose", method.name())));
    }
    let gram = inner_products(Similarity::Importance, &observed, n_models)?;
    let (living, n_clusters) = living::clustered(&observed.constants);
    let (Some(importance), false) = (observed.importance, living.is_empty()) else {
        return Ok(vec![0.0; n_clusters.len()]);
    };
    let lost = if *method == Method::Select {
        select::losses(importance, observed.moments, &living, watch)?
    } else {
        let linkage = if matches!(method, Method::Average { .. }) { Linkage::Average } else { Linkage::Ward };
        let gram = gram.select(Axis(0), &living).select(Axis(1), &living);
        let tree = linkage::linkage(gram.view(), 1, linkage);
        curve::losses(importance, observed.moments, &living, &tree.merges, watch)?
    };
    Ok(n_clusters.into_iter().map(|n| n.checked_sub(1).map_or(0.0, |at| lost[at])).collect())
}

fn unmeasured() -> Error {
    Error::Request("importance was not measured: collect with --importance".into())
}

/// What a linkage agglomerates by.
fn inner_products(similarity: Similarity, observed: &Observed<'_>, n_models: usize) -> Result<Array2<f64>> {
    let mut gram = similarity.gram(observed.clone())?;
    // Importance is measured wherever features are read.
    if similarity != Similarity::Importance {
        observed.constants.complete(&mut gram);
    }
    if let Some(tie) = ties(observed, n_models) {
        let scale: Vec<f64> = gram.diag().iter().map(|x| x.max(0.0).sqrt()).collect();
        gram.indexed_iter_mut().for_each(|((i, j), x)| *x -= scale[i] * scale[j] * tie(i, j));
    }
    Ok(gram)
}

/// How much less similar features count that only a norm can tell apart: more than rounding, less than what else matters.
const TIE: f64 = 1e-4;

/// What the similarity of two joint features loses where a norm or an attention reads all features of a space together, and
/// `None` elsewhere. Equal features must not be united at others' cost there, for groups of different sizes change what it
/// reads: across models comes before within one. And of features in proportion, those of one size come first:
/// `(E z_i² + E z_j² − 2 E z_i z_j) / (E z_i² + E z_j²)` is 0 for equal ones, and 2 at most.
fn ties(observed: &Observed<'_>, n_models: usize) -> Option<impl Fn(usize, usize) -> f64> {
    observed.constants.is_weighed().then(|| {
        let g = observed.moments.second_moment();
        let d = g.nrows() / n_models;
        move |i: usize, j: usize| {
            let squares = g[[i, i]] + g[[j, j]];
            let apart = if squares > 0.0 { (1.0 - 2.0 * g[[i, j]] / squares).clamp(0.0, 2.0) } else { 0.0 };
            if i == j { 0.0 } else { TIE * (apart / 2.0 + f64::from(u8::from(i / d == j / d))) }
        }
    })
}

fn told_apart(mut r: Array2<f32>, observed: &Observed<'_>, n_models: usize) -> Array2<f32> {
    if let Some(tie) = ties(observed, n_models) {
        r.indexed_iter_mut().for_each(|((i, j), r)| *r -= tie(i, j) as f32);
    }
    r
}

/// What a method that makes pairs maximises.
fn pairing(observed: &Observed<'_>, n_models: usize) -> Array2<f32> {
    told_apart(observed.constants.pairing(observed.moments), observed, n_models)
}

/// The similarities of those that are clustered.
fn among<'a, T: Copy>(similarity: &'a Array2<T>, of: &Living<'_>) -> CowArray<'a, T, Ix2> {
    if of.features.len() == similarity.nrows() {
        return similarity.view().into();
    }
    similarity.select(Axis(0), of.features).select(Axis(1), of.features).into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Moments;

    fn moments(n: usize) -> Moments {
        let mut m = Moments::zeros(n);
        m.count = 1;
        m
    }

    #[test]
    fn requests_that_make_no_sense_are_refused_in_words() {
        let zip = |alpha, beta| Method::Zip { alpha, beta };
        let refusal = |method: Method, n_models, n_groups| {
            match_features(&method, &moments(6), n_models, n_groups).unwrap_err().to_string()
        };
        assert!(refusal(zip(f32::NAN, 0.1), 2, 3).contains("alpha is NaN"));
        assert!(refusal(zip(1.5, 0.1), 2, 3).contains("alpha is 1.5"));
        assert!(refusal(zip(0.3, -0.1), 2, 3).contains("beta is -0.1"));
        assert!(refusal(zip(0.3, f32::NAN), 2, 3).contains("beta is NaN"));
        assert!(refusal(zip(0.3, 0.1), 1, 3).contains("at least 2 models"));
        assert!(refusal(zip(0.3, 0.1), 4, 3).contains("6 joint features"));
        assert!(refusal(zip(0.3, 0.1), 2, 0).contains("0 groups"));
        assert!(refusal(zip(0.3, 0.1), 2, 7).contains("7 groups"));
        assert!(refusal(Method::Permute, 2, 4).contains("d' = d = 3"));
        assert!(refusal(Method::Identity, 3, 3).contains("`identity`"));
        assert!(refusal(Method::First, 2, 2).contains("`first` always makes d' = d = 3 groups, not 2"));
        assert!(refusal(Method::Random { seed: 1 }, 2, 6).contains("`random`"));
        assert!(refusal(Method::Optimal, 2, 4).contains("use `zip`, `ward`, `average`, `select` or `kmeans`"));
        assert!(refusal(Method::Optimal, 3, 2).contains("2 models, not 3"));
        let ward = Method::Ward { similarity: Similarity::Correlation };
        assert!(refusal(ward, 2, 7).contains("7 groups"));
        let wide = match_features(&Method::Optimal, &moments(1_282), 2, 641).unwrap_err().to_string();
        assert!(wide.contains("at most 1280") && wide.contains("use `permute`"), "{wide}");
        let empty = match_features(&Method::Permute, &Moments::zeros(4), 2, 2).unwrap_err();
        assert!(matches!(empty, Error::Numbers(_)), "{empty}");
    }

    #[test]
    fn methods_are_written_by_name() {
        let similarity = Similarity::Covariance;
        for (method, text) in [
            (Method::Zip { alpha: 0.5, beta: 1.0 }, r#"{"name":"zip","alpha":0.5,"beta":1.0}"#),
            (Method::Permute, r#"{"name":"permute"}"#),
            (Method::Identity, r#"{"name":"identity"}"#),
            (Method::Ward { similarity }, r#"{"name":"ward","similarity":"covariance"}"#),
            (Method::Average { similarity: Similarity::Moments }, r#"{"name":"average","similarity":"moments"}"#),
            (Method::Select, r#"{"name":"select"}"#),
            (Method::Kmeans { seed: 7 }, r#"{"name":"kmeans","seed":7}"#),
            (Method::Optimal, r#"{"name":"optimal"}"#),
            (Method::Random { seed: u64::MAX }, r#"{"name":"random","seed":18446744073709551615}"#),
            (Method::First, r#"{"name":"first"}"#),
        ] {
            assert_eq!(serde_json::to_string(&method).unwrap(), text);
            assert_eq!(serde_json::from_str::<Method>(text).unwrap(), method);
            assert!(text.contains(&format!("\"{}\"", method.name())), "{text}");
        }
        let default: Method = serde_json::from_str(r#"{"name":"ward"}"#).unwrap();
        assert_eq!(default, Method::Ward { similarity: Similarity::Correlation });
        assert!(serde_json::from_str::<Method>(r#"{"name":"kmeans","seed":-1}"#).is_err());
        assert!(serde_json::from_str::<Method>(r#"{"name":"ward","alpha":1.0}"#).is_err());
        for similarity in Similarity::ALL {
            assert_eq!(serde_json::to_string(&similarity).unwrap(), format!("\"{}\"", similarity.name()));
        }
    }

    #[test]
    fn features_may_all_be_dead() {
        for method in [
            Method::Ward { similarity: Similarity::Correlation },
            Method::Average { similarity: Similarity::Covariance },
            Method::Kmeans { seed: 0 },
            Method::Optimal,
            Method::First,
        ] {
            let matching = match_features(&method, &moments(6), 2, 3).unwrap();
            assert_eq!((matching.assignment.len(), matching.n_groups), (6, 3), "{method:?}");
        }
    }

    #[test]
    fn identity_groups_equal_positions() {
        let matching = match_features(&Method::Identity, &moments(6), 3, 2).unwrap();
        assert_eq!(matching.assignment, [0, 1, 0, 1, 0, 1]);
        assert_eq!(matching.merges, [(0, 2), (1, 3), (0, 4), (1, 5)]);
    }
}
