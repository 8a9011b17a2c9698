//! A feature axis as whole spaces, one after the other, and where its numbers really are.

use super::Segment;
use super::features::{Axis, Classes, Features};
use crate::graph::Op;
use std::collections::BTreeMap;

/// A value's feature axis in terms of spaces.
#[derive(Clone, PartialEq)]
pub(super) struct Arranged {
    pub segments: Vec<Segment>,
    /// Where in the value each number of the segments is, unless they stand in this order.
    pub order: Option<Vec<usize>>,
}

impl Arranged {
    /// The axis of a value whose entries are `axis`.
    ///
    /// # Errors
    /// Features of a class that stand there unequally often or are repeated unequally.
    pub fn of(axis: &Axis, features: &Features, classes: &Classes) -> Result<Self, String> {
        arrange(axis, features, classes)
    }

    /// The numbers in the order in which the value has them.
    pub fn unordered(self) -> Self {
        Self { order: None, ..self }
    }

    /// After Flatten over so many positions.
    pub fn flattened(&self, positions: usize) -> Self {
        let segments = self.segments.iter().map(|s| Segment { repeat: s.repeat * positions, ..*s }).collect();
        let spread = |&at: &usize| at * positions..(at + 1) * positions;
        Self { segments, order: self.order.as_ref().map(|order| order.iter().flat_map(spread).collect()) }
    }

    /// Of a sum or product.
    ///
    /// # Errors
    /// Values that hold the same features in different orders.
    pub fn tied(all: &[&Self]) -> Result<Self, String> {
        if all.iter().all(|other| *other == all[0]) {
            return Ok(all[0].clone());
        }
        Err("its inputs hold the same features in different orders, which cannot be analysed".into())
    }

    /// One after the other.
    pub fn concatenated(all: &[&Self], classes: &Classes) -> Self {
        let segments = all.iter().flat_map(|part| part.segments.iter().copied()).collect();
        if all.iter().all(|part| part.order.is_none()) {
            return Self { segments, order: None };
        }
        let mut order = Vec::new();
        for part in all {
            let start = order.len();
            let len = part.starts(classes).last().copied().unwrap_or(0);
            order.extend((0..len).map(|k| start + part.order.as_ref().map_or(k, |order| order[k])));
        }
        Self { segments, order: Some(order) }
    }

    /// Where each segment begins along the axis, and where the last one ends.
    fn starts(&self, classes: &Classes) -> Vec<usize> {
        let mut starts = vec![0];
        for segment in &self.segments {
            starts.push(starts[starts.len() - 1] + classes.sizes[segment.space] * segment.repeat);
        }
        starts
    }

    /// Which segment of `read` each segment is, being what `op` takes of it.
    ///
    /// # Errors
    /// A segment that comes from several.
    pub fn picked(&self, read: &Self, op: &Op, classes: &Classes) -> Result<Vec<usize>, String> {
        let starts = read.starts(classes);
        let len = starts[starts.len() - 1];
        // Where each number of the value read stands along its axis.
        let mut place: Vec<usize> = (0..len).collect();
        for (at, &position) in read.order.iter().flatten().enumerate() {
            place[position] = at;
        }
        let source: Vec<usize> = match op {
            Op::Slice { ranges } => ranges.iter().flat_map(|&[from, to]| from..to).collect(),
            Op::ChannelShuffle { groups } => (0..len).map(|k| k % groups * (len / groups) + k / groups).collect(),
            _ => (0..len).collect(),
        };
        let own = self.starts(classes);
        let picked = self.segments.iter().enumerate().map(|(i, segment)| {
            let position = |k: usize| place[source[self.order.as_ref().map_or(k, |order| order[k])]];
            let at = starts.partition_point(|&start| start <= position(own[i])) - 1;
            let whole = read.segments[at] == *segment
                && (own[i]..own[i + 1]).enumerate().all(|(offset, k)| position(k) == starts[at] + offset);
            whole.then_some(at).ok_or_else(|| "takes parts of tied features, which cannot be analysed".to_owned())
        });
        picked.collect()
    }
}

/// Every class of features on the axis as a segment, in the order in which they begin.
///
/// # Errors
/// Features of a class that stand there unequally often or are repeated unequally.
fn arrange(axis: &Axis, features: &Features, classes: &Classes) -> Result<Arranged, String> {
    let found: Vec<(usize, usize)> = axis.iter().map(|entry| classes.of[features.root(entry.feature)]).collect();
    if let Some(segments) = in_order(axis, &found, classes) {
        return Ok(Arranged { segments, order: None });
    }
    let mut starts = Vec::with_capacity(axis.len());
    let mut end = 0;
    for entry in axis {
        starts.push(end);
        end += entry.repeat;
    }
    // Where each class begins, and for each of its features the entries that hold it.
    let mut held: BTreeMap<usize, (usize, Vec<Vec<usize>>)> = BTreeMap::new();
    for (at, &(class, place)) in found.iter().enumerate() {
        let (_, entries) = held.entry(class).or_insert_with(|| (at, vec![Vec::new(); classes.sizes[class]]));
        entries[place].push(at);
    }
    let mut by_start: Vec<(usize, usize, Vec<Vec<usize>>)> =
        held.into_iter().map(|(class, (start, entries))| (start, class, entries)).collect();
    by_start.sort_unstable_by_key(|(start, ..)| *start);
    let mut segments = Vec::new();
    let mut order = Vec::with_capacity(end);
    for (_, space, entries) in by_start {
        let times = entries[0].len();
        let repeat = axis[entries[0][0]].repeat;
        if entries.iter().any(|at| at.len() != times) || entries.iter().flatten().any(|&at| axis[at].repeat != repeat) {
            return Err("its features are not whole parts of what others hold".into());
        }
        for time in 0..times {
            segments.push(Segment { space, repeat });
            for at in &entries {
                order.extend(starts[at[time]]..starts[at[time]] + repeat);
            }
        }
    }
    Ok(Arranged { segments, order: Some(order) })
}

/// The segments, where the classes stand one after the other, each in its own order.
fn in_order(axis: &Axis, found: &[(usize, usize)], classes: &Classes) -> Option<Vec<Segment>> {
    let mut segments = Vec::new();
    let mut at = 0;
    while at < axis.len() {
        let space = found[at].0;
        let repeat = axis[at].repeat;
        let dim = classes.sizes[space];
        let whole =
            (0..dim).all(|place| found.get(at + place) == Some(&(space, place)) && axis[at + place].repeat == repeat);
        if !whole {
            return None;
        }
        segments.push(Segment { space, repeat });
        at += dim;
    }
    Some(segments)
}
