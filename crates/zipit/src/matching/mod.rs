//! Which features become one: a matching assigns each of the N·d joint features to one of d' groups.

pub mod cca;
pub mod identity;
mod layout;
pub mod limits;
pub mod mudsc;
pub mod oracle;
mod order;
pub mod permute;
mod products;
pub mod weight;
pub mod zip;

use crate::{Error, Moments, Result};
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
}

impl Method {
    /// What the command line calls it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Zip { .. } => "zip",
            Self::Permute => "permute",
            Self::Identity => "identity",
        }
    }

    /// Checks the parameters.
    ///
    /// # Errors
    /// [`Error::Request`] for an α that is not finite or above 1, or a β outside 0…1.
    pub fn validate(&self) -> Result<()> {
        match *self {
            Self::Zip { alpha, .. } if !alpha.is_finite() || alpha > 1.0 => Err(Error::Request(format!(
                "alpha is {alpha}; it must be a number of at most 1 (1: no damping; 0 or less: exclusive groups)"
            ))),
            Self::Zip { beta, .. } if !(0.0..=1.0).contains(&beta) => {
                Err(Error::Request(format!("beta is {beta}; it must lie between 0 (no merges within a model) and 1")))
            }
            Self::Zip { .. } | Self::Permute | Self::Identity => Ok(()),
        }
    }
}

/// Groups of joint features at one merge point.
#[derive(Debug, Clone, PartialEq, Eq)]
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
        Self { assignment, n_groups: n_groups as usize, merges, caps_lifted }
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
}

/// Matches the joint features measured in `moments` (N·d of `n_models` = N models) into `n_groups` = d' groups.
///
/// `zip` takes any 1 ≤ d' ≤ N·d; `permute` and `identity` know only d' = d.
///
/// # Errors
/// [`Error::Request`] for parameters or a d' that the method cannot serve, [`Error::Numbers`] for moments without
/// samples, with NaN or infinity, or of a number of features that N does not divide.
pub fn match_features(method: &Method, moments: &Moments, n_models: usize, n_groups: usize) -> Result<Matching> {
    method.validate()?;
    moments.validate("moments")?;
    let n_joint = moments.n_joint();
    if n_models < 2 {
        return Err(Error::Request(format!("matching needs the features of at least 2 models, not of {n_models}")));
    }
    if n_joint == 0 || !n_joint.is_multiple_of(n_models) {
        return Err(Error::Numbers(format!("{n_joint} joint features cannot be those of {n_models} models alike")));
    }
    let d = n_joint / n_models;
    if n_groups == 0 || n_groups > n_joint {
        return Err(Error::Request(format!(
            "{n_groups} groups asked for; {n_models} models of {d} features make 1 to {n_joint} groups"
        )));
    }
    if !matches!(method, Method::Zip { .. }) && n_groups != d {
        return Err(Error::Request(format!(
            "method `{}` always makes d' = d = {d} groups, not {n_groups}: use `zip` to keep more or fewer features",
            method.name()
        )));
    }
    Ok(match *method {
        Method::Zip { alpha, beta } => zip::zip(moments.correlation().view(), n_models, n_groups, alpha, beta),
        Method::Permute => permute::permute(moments.correlation().view(), n_models),
        Method::Identity => identity::identity(d, n_models),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

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
        let empty = match_features(&Method::Permute, &Moments::zeros(4), 2, 2).unwrap_err();
        assert!(matches!(empty, Error::Numbers(_)), "{empty}");
    }

    #[test]
    fn identity_groups_equal_positions() {
        let matching = match_features(&Method::Identity, &moments(6), 3, 2).unwrap();
        assert_eq!(matching.assignment, [0, 1, 0, 1, 0, 1]);
        assert_eq!(matching.merges, [(0, 2), (1, 3), (0, 4), (1, 5)]);
    }
}
