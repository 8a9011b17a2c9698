//! A grid's combinations: one variant each.

use crate::spec::Grid;
use crate::variant::{Combined, Heads, Method, MethodName, Rule, Trust, Variant};

impl Grid {
    /// Every combination, in the order written; none of a grid that is `like` a choice.
    #[must_use]
    pub fn variants(&self) -> Vec<Variant> {
        self.with_methods(&self.methods())
    }

    /// Every combination of `methods` with the grid's other lists.
    #[must_use]
    pub fn with_methods(&self, methods: &[Method]) -> Vec<Variant> {
        let counts: Vec<Option<u64>> =
            if self.images.is_empty() { vec![None] } else { self.images.iter().copied().map(Some).collect() };
        let mut all = Vec::new();
        for from in &self.images_from {
            for &images in &counts {
                for method in methods {
                    for extent in &self.extent {
                        let rules = self
                            .rules()
                            .into_iter()
                            .flat_map(|rule| self.trusts(rule).into_iter().map(move |t| (rule, t)));
                        let rules =
                            rules.flat_map(|(rule, t)| self.adapt.iter().map(move |&adapted| (rule, t, adapted)));
                        all.extend(rules.map(|(rule, trust, adapted)| Variant {
                            method: method.clone(),
                            extent: extent.clone(),
                            rule,
                            from: from.clone(),
                            images,
                            heads: self.heads,
                            trust,
                            adapted,
                            // Statistics stay every network's own.
                            reset: self.reset && !method.combined.as_ref().is_some_and(Combined::masks),
                            gate: self.gate,
                        }));
                    }
                }
            }
        }
        all
    }

    fn trusts(&self, rule: Rule) -> Vec<Trust> {
        match &self.trust[..] {
            _ if !rule.asks() => vec![Trust::All],
            [] if self.heads == Heads::Merge => vec![Trust::Surest],
            [] => vec![Trust::All],
            given => given.to_vec(),
        }
    }

    fn methods(&self) -> Vec<Method> {
        let plain = |name| Method { name, alpha_beta: None, combined: None };
        let mut methods = Vec::new();
        for &name in &self.method {
            if name == MethodName::Zip {
                for &alpha in &self.alpha {
                    let zip = |&beta: &f64| Method { alpha_beta: Some((alpha, beta)), ..plain(name) };
                    methods.extend(self.beta.iter().map(zip));
                }
            } else {
                methods.push(plain(name));
            }
        }
        let scales: Vec<Option<f64>> =
            if self.scale.is_empty() { vec![None] } else { self.scale.iter().copied().map(Some).collect() };
        for rule in &self.combine {
            let combined = |&scale: &Option<f64>| Combined { rule: rule.clone(), scale };
            let method = |combined| Method { combined: Some(combined), ..plain(MethodName::Combine) };
            methods.extend(scales.iter().map(combined).map(method));
        }
        methods
    }

    /// A rule of `combine` leaves features where they are.
    fn rules(&self) -> Vec<Rule> {
        if self.combine.is_empty() { self.rule.clone() } else { vec![Rule::Pinv] }
    }

    /// Whether its rows belong to a case.
    #[must_use]
    pub fn is_of(&self, case: &str) -> bool {
        self.cases.as_ref().is_none_or(|cases| cases.iter().any(|name| name == case))
    }
}
