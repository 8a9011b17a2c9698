//! Merge M and unmerge U of every merged space, checked against the networks they are used on.

use super::{Blended, Groups, Heads};
use crate::graph::{Fixed, Graph, Segment, SpaceId, Spaces};
use crate::plan::{Plan, PointPlan};
use crate::{Error, Model, Result};
use ndarray::{Array2, ArrayView2, Axis, Slice};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// M and U of one merged space.
pub(super) struct Map<'a> {
    /// Group of each joint feature, `[N·d]`.
    group: Cow<'a, [u32]>,
    /// Features that no average is made of and that no group brings back, `[N·d]`.
    rests: Vec<bool>,
    /// What each feature counts in its group, `[N·d]`.
    counts: Vec<f64>,
    /// What all members of each group count together, `[d']`.
    pub totals: Vec<f64>,
    /// `[d', N·d]` where dense; otherwise groups are averaged.
    merge: Option<&'a Array2<f32>>,
    /// `[N·d, d']` where dense; otherwise the group indicator.
    unmerge: Option<&'a Array2<f32>>,
    dim: usize,
    /// What a norm's weight takes for the spread that averaging took (see [`PointPlan::spread`]).
    pub spread: Option<f64>,
}

/// A feature of one model in its group.
#[derive(Clone, Copy)]
pub(super) struct Member {
    /// In its model.
    pub feature: usize,
    /// The group.
    pub group: usize,
    /// What it counts there.
    pub count: f64,
}

impl Map<'_> {
    /// Model i's features that do not rest.
    pub(super) fn members_of(&self, i: usize) -> impl Iterator<Item = Member> {
        let first = i * self.dim;
        (0..self.dim).filter(move |k| !self.rests[first + k]).map(move |feature| Member {
            feature,
            group: self.group[first + feature] as usize,
            count: self.counts[first + feature],
        })
    }

    /// The group that model i's feature k is in.
    pub(super) fn group_of(&self, i: usize, k: usize) -> usize {
        self.group[i * self.dim + k] as usize
    }

    /// Mᵢ, `[d', d]`, where it is dense.
    pub(super) fn merge_of(&self, i: usize) -> Option<ArrayView2<'_, f32>> {
        self.merge.map(|m| m.slice_axis(Axis(1), Slice::from(i * self.dim..(i + 1) * self.dim)))
    }

    /// Uᵢ, `[d, d']`, where it is dense.
    pub(super) fn unmerge_of(&self, i: usize) -> Option<ArrayView2<'_, f32>> {
        self.unmerge.map(|u| u.slice_axis(Axis(0), Slice::from(i * self.dim..(i + 1) * self.dim)))
    }

    fn n_groups(&self) -> usize {
        self.totals.len()
    }

    /// M.
    pub(super) fn blended(&self) -> Blended {
        match self.merge {
            Some(merge) => Blended::Dense(Arc::new(merge.clone())),
            None => Blended::Groups(Arc::new(Groups {
                share: (self.group.iter().zip(&self.counts))
                    .map(|(&g, count)| (count / self.totals[g as usize]) as f32)
                    .collect(),
                of: self.group.to_vec(),
            })),
        }
    }
}

/// The maps of the merged spaces, by space.
pub(super) struct Maps<'a> {
    maps: Vec<Option<Map<'a>>>,
    dims: Vec<usize>,
}

impl<'a> Maps<'a> {
    /// Those of one model's `graph`; the plan is valid by itself and for so many models.
    pub(super) fn new(models: &[&Model], graph: &Graph, spaces: &Spaces, plan: &'a Plan, heads: Heads) -> Result<Self> {
        let points = graph.merge_points(spaces);
        let mut maps: Vec<Option<Map<'a>>> = spaces.spaces.iter().map(|_| None).collect();
        for planned in &plan.points {
            let misfit = |what: String| Error::Request(format!("the plan's merge point `{}` {what}", planned.name));
            let point = points
                .iter()
                .find(|p| p.name == planned.name)
                .ok_or_else(|| misfit(format!("is none of {}'s; the plan was made from other models", graph.arch)))?;
            let map = from_plan(planned, point.dim, plan.n_models).map_err(misfit)?;
            if maps[point.space].replace(map).is_some() {
                return Err(misfit("is planned twice".into()));
            }
        }
        whole_kin(&maps, spaces)?;
        whole_blocks(&maps, spaces)?;
        if heads == Heads::Merge {
            for output in 0..graph.outputs.len() {
                for (space, map) in head_maps(models, spaces, output)? {
                    if let Some(other) = &maps[space]
                        && other.group != map.group
                    {
                        return Err(Error::Request(format!(
                            "output `{}` shares its logits with another output that orders its classes otherwise, so \
                             the heads cannot be merged",
                            graph.outputs[output]
                        )));
                    }
                    maps[space] = Some(map);
                }
            }
        }
        Ok(Self { maps, dims: spaces.spaces.iter().map(|space| space.dim).collect() })
    }

    /// The maps of a space, if it is merged.
    pub(super) fn get(&self, space: SpaceId) -> Option<&Map<'a>> {
        self.maps[space].as_ref()
    }

    /// Features of the space in one copy of a value: d' where merged, d otherwise.
    pub(super) fn width(&self, space: SpaceId) -> usize {
        self.get(space).map_or(self.dims[space], Map::n_groups)
    }

    /// d, features of the space in a source model.
    pub(super) fn dim(&self, space: SpaceId) -> usize {
        self.dims[space]
    }

    /// Length of a feature axis in one copy of a value.
    pub(super) fn axis_width(&self, axis: &[Segment]) -> usize {
        axis.iter().map(|segment| self.width(segment.space) * segment.repeat).sum()
    }
}

/// The maps of a plan that is valid by itself, checked against the network.
fn from_plan(point: &PointPlan, dim: usize, n_models: usize) -> Result<Map<'_>, String> {
    let n_joint = n_models * dim;
    if point.assignment.len() != n_joint {
        return Err(format!(
            "assigns {} features, but {n_models} models with {dim} each have {n_joint}",
            point.assignment.len()
        ));
    }
    let (counts, totals) = point.counts();
    Ok(Map {
        group: Cow::Borrowed(&point.assignment),
        rests: point.rests(),
        counts,
        totals,
        merge: point.merge.as_ref(),
        unmerge: point.unmerge.as_ref(),
        dim,
        spread: point.summary.spread,
    })
}

/// Refuses a plan that merges some of what belongs together.
fn whole_kin(maps: &[Option<Map<'_>>], spaces: &Spaces) -> Result<()> {
    for (space, _) in spaces.spaces.iter().zip(maps).filter(|(_, map)| map.is_some()) {
        let other = spaces.spaces.iter().zip(maps).find(|(other, map)| other.kin == space.kin && map.is_none());
        if let Some((other, _)) = other {
            return Err(Error::Request(format!(
                "the plan merges `{}` but not `{}`; one layer makes both, or their blocks belong together, so they are \
                 merged together or not at all",
                space.name, other.name
            )));
        }
    }
    Ok(())
}

/// Refuses a plan whose groups or unmerge reach across blocks, or that moves the blocks of one family apart.
fn whole_blocks(maps: &[Option<Map<'_>>], spaces: &Spaces) -> Result<()> {
    let mut families: BTreeMap<usize, (Vec<usize>, &str)> = BTreeMap::new();
    for (space, map) in spaces.spaces.iter().zip(maps) {
        let (Some(blocks), Some(map)) = (space.blocks, map) else { continue };
        let width = space.dim / blocks.count;
        let refuse = |what: &str| {
            Err(Error::Request(format!(
                "the plan's merge point `{}`, in blocks of {width} features, {what}",
                space.name
            )))
        };
        let of = |k: usize| map.group[k] as usize / width;
        let starts: Vec<usize> = (0..map.group.len()).step_by(width).collect();
        if !map.n_groups().is_multiple_of(width)
            || starts.iter().any(|&start| (start..start + width).any(|k| of(k) != of(start)))
        {
            return refuse("has groups across blocks");
        }
        let crosses = |u: &Array2<f32>| u.indexed_iter().any(|((k, group), &x)| x != 0.0 && group / width != of(k));
        if map.merge.is_some() || map.unmerge.is_some_and(crosses) {
            return refuse("has maps that mix features of different blocks");
        }
        let own: Vec<usize> = starts.iter().map(|&start| of(start)).collect();
        let (first, name) = families.entry(blocks.family).or_insert_with(|| (own.clone(), &space.name));
        if *first != own {
            return refuse(&format!("moves them otherwise than `{name}`, whose blocks belong to them"));
        }
    }
    Ok(())
}

/// Class c of every model's head is one group, whatever the order in which a model lists its classes.
fn head_maps(models: &[&Model], spaces: &Spaces, output: usize) -> Result<Vec<(SpaceId, Map<'static>)>> {
    let value = &models[0].graph.outputs[output];
    let classes = |model: &Model| -> Vec<String> { model.tasks[output].classes.clone() };
    let first = classes(models[0]);
    let refuse = |why: &str| Err(Error::Request(format!("the heads at `{value}` {why}, so they cannot be merged")));
    if first.is_empty() || spaces.axes[value].is_empty() {
        return refuse("have no classes that say which features belong together");
    }
    if spaces.orders.contains_key(value) {
        return refuse("have their features shuffled");
    }
    if spaces.axes[value].iter().any(|segment| spaces.spaces[segment.space].fixed == Some(Fixed::Input)) {
        return refuse("are tied to the input's channels");
    }
    let orders: Option<Vec<Vec<u32>>> = models
        .iter()
        .map(|model| {
            let own = classes(model);
            let order = own.iter().map(|class| first.iter().position(|c| c == class).map(|c| c as u32));
            (own.len() == first.len()).then(|| order.collect::<Option<Vec<u32>>>()).flatten()
        })
        .collect();
    let Some(orders) = orders else {
        let listed: Vec<String> = (models.iter().enumerate())
            .map(|(i, model)| format!("model {} ({}): {}", i + 1, model.tasks[output].name, classes(model).join(", ")))
            .collect();
        return Err(Error::Request(format!(
            "the heads at `{value}` do not share one label space, so they cannot be merged; keep them separate. {}",
            listed.join("; ")
        )));
    };
    let axis = &spaces.axes[value];
    let in_order = orders.iter().flatten().enumerate().all(|(j, &c)| j % first.len() == c as usize);
    if let [Segment { space, repeat: 1 }] = axis[..] {
        return Ok(vec![(space, head_map(orders.concat(), models.len(), first.len()))]);
    }
    if !in_order {
        return refuse("are put together from parts and list their classes in different orders");
    }
    let identity = |d: usize| (0..models.len() * d).map(|j| (j % d) as u32).collect();
    Ok(axis
        .iter()
        .map(|segment| {
            let d = spaces.spaces[segment.space].dim;
            (segment.space, head_map(identity(d), models.len(), d))
        })
        .collect())
}

fn head_map(group: Vec<u32>, n_models: usize, dim: usize) -> Map<'static> {
    let (rests, counts, totals) = (vec![false; group.len()], vec![1.0; group.len()], vec![n_models as f64; dim]);
    let group = Cow::Owned(group);
    Map { group, rests, counts, totals, merge: None, unmerge: None, dim, spread: None }
}
