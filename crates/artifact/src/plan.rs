//! Plans: magic, lengths, a JSON header, the assignments in bincode, weights and dense maps as raw floats, a digest.
//!
//! bincode is unmaintained, so it stays in this file, behind a codec byte that makes room for a successor.

use crate::container::{numbers, write_all};
use crate::header::PLAN_VERSION;
use crate::{Error, InputRef, Kind, Provenance, Result, atomic, json};
use ndarray::{Array2, ArrayView1, ArrayViewD};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use zipit::Graph;
use zipit::plan::{Plan, PlanSettings, PointPlan, PointSummary};

/// The first bytes of the file.
pub(crate) const MAGIC: &[u8; 8] = b"zipit-pl";
/// bincode 2, standard configuration, of `Vec<Vec<u32>>`.
const CODEC: u8 = 1;
/// magic, version u32, codec u8, three zeros, lengths of the three sections u64.
const PREFIX: usize = 8 + 4 + 4 + 24;
const DIGEST: usize = 32;
/// The oldest version that is read: what later ones have beside it is none.
const OLDEST: u32 = 4;
/// What the assignments may take when decoded.
const LIMIT: usize = 1 << 30;

/// A plan, the network it is for and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanFile {
    /// The file it was read from.
    pub path: PathBuf,
    /// BLAKE3 of the file.
    pub blake3: String,
    /// The maps.
    pub plan: Plan,
    /// The network that the stats were measured on.
    pub graph: Graph,
    /// The models in the order of z = [x¹; …; xᴺ].
    pub models: Vec<InputRef>,
    /// Who made it and from what.
    pub provenance: Provenance,
}

impl PlanFile {
    /// This file as an input of what is made from it.
    #[must_use]
    pub fn input_ref(&self) -> InputRef {
        InputRef::new(&self.path, Kind::Plan, &self.blake3, Some(self.provenance.clone()))
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    n_models: usize,
    settings: PlanSettings,
    points: Vec<Point>,
    graph: Graph,
    models: Vec<InputRef>,
    provenance: Provenance,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Point {
    name: String,
    n_joint: usize,
    n_groups: usize,
    /// Whether what every feature counts in its group follows as `[n_joint]` f32 in the dense section; not in versions 4, 5.
    #[serde(default)]
    weights: bool,
    /// Whether M follows as `[n_groups, n_joint]` f32 in the dense section.
    dense_merge: bool,
    /// Whether U follows, after M, as `[n_joint, n_groups]` f32 in the dense section.
    dense_unmerge: bool,
    /// The joint features without weight in M; none in version 4.
    #[serde(default)]
    resting: Vec<u32>,
    summary: PointSummary,
}

/// What a plan and the network it is for must agree on.
fn check(plan: &Plan, graph: &Graph, models: &[InputRef]) -> Result<(), String> {
    plan.validate().map_err(|e| e.to_string())?;
    if models.len() != plan.n_models {
        return Err(format!("a plan for {} models names {}", plan.n_models, models.len()));
    }
    let spaces = graph.spaces().map_err(|e| e.to_string())?;
    let merge_points = graph.merge_points(&spaces);
    let mut rest = merge_points.iter();
    for point in &plan.points {
        let Some(at) = rest.find(|at| at.name == point.name) else {
            return Err(format!("`{}` is no merge point of the graph, or not in its order", point.name));
        };
        if Some(point.assignment.len()) != at.dim.checked_mul(plan.n_models) {
            return Err(format!(
                "`{}` assigns {} features, {} models of {} have others",
                point.name,
                point.assignment.len(),
                plan.n_models,
                at.dim
            ));
        }
    }
    Ok(())
}

/// Writes a plan. The same content gives the same bytes.
///
/// # Errors
/// A plan that does not [`validate`](Plan::validate) or does not fit `graph` and `models`, or a file that cannot be
/// written.
pub fn write(path: &Path, plan: &Plan, graph: &Graph, models: &[InputRef], provenance: &Provenance) -> Result<()> {
    let unwritable = |reason: String| Error::unwritable(path, &reason);
    check(plan, graph, models).map_err(unwritable)?;
    let header = Header {
        n_models: plan.n_models,
        settings: plan.settings.clone(),
        points: plan
            .points
            .iter()
            .map(|point| Point {
                name: point.name.clone(),
                n_joint: point.assignment.len(),
                n_groups: point.n_groups,
                weights: point.weights.is_some(),
                dense_merge: point.merge.is_some(),
                dense_unmerge: point.unmerge.is_some(),
                resting: point.resting.clone(),
                summary: point.summary.clone(),
            })
            .collect(),
        graph: graph.clone(),
        // The chain that made the models is in the provenance, through the stats.
        models: models.iter().map(|model| InputRef { provenance: None, ..model.clone() }).collect(),
        provenance: provenance.compact(),
    };
    let header = json::encode("header", &header).map_err(unwritable)?;
    let assignments: Vec<&[u32]> = plan.points.iter().map(|point| &point.assignment[..]).collect();
    let assignments = bincode::serde::encode_to_vec(&assignments, bincode::config::standard())
        .map_err(|e| unwritable(e.to_string()))?;
    let dense = || plan.points.iter().flat_map(dense);
    let n_dense: usize = dense().map(|numbers| numbers.len() * 4).sum();
    atomic::write(path, |file| {
        let mut file = Hashing { file, hasher: blake3::Hasher::new() };
        file.write_all(MAGIC)?;
        file.write_all(&PLAN_VERSION.to_le_bytes())?;
        file.write_all(&[CODEC, 0, 0, 0])?;
        for length in [header.len(), assignments.len(), n_dense] {
            file.write_all(&(length as u64).to_le_bytes())?;
        }
        file.write_all(header.as_bytes())?;
        file.write_all(&assignments)?;
        dense().try_for_each(|numbers| write_all(&mut file, &numbers, f32::to_le_bytes))?;
        file.file.write_all(file.hasher.finalize().as_bytes())
    })
}

/// What the dense section has of a point, in its order.
fn dense(point: &PointPlan) -> impl Iterator<Item = ArrayViewD<'_, f32>> {
    let weights = point.weights.as_ref().map(|weights| ArrayView1::from(weights).into_dyn());
    weights.into_iter().chain([&point.merge, &point.unmerge].into_iter().flatten().map(|map| map.view().into_dyn()))
}

/// Hashes what it writes.
struct Hashing<'a> {
    file: &'a mut dyn Write,
    hasher: blake3::Hasher,
}

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Reads a plan and checks all of it: the digest, the network, every assignment, every map.
///
/// # Errors
/// A file that cannot be read, is another kind or version, is damaged, or holds no usable plan.
pub fn read(path: &Path) -> Result<PlanFile> {
    let found = crate::sniff(path)?;
    if found != Kind::Plan {
        return Err(Error::Kind { path: path.to_owned(), found, expected: Kind::Plan });
    }
    let bytes = fs::read(path).map_err(Error::read(path))?;
    let [header, assignments, dense] = sections(path, &bytes)?;
    let unusable = |reason: String| Error::contents(path, Kind::Plan, &reason);
    let header = std::str::from_utf8(header).map_err(|_| unusable("its header is no text".to_owned()))?;
    let header: Header = json::decode("header", header).map_err(unusable)?;
    let limited = bincode::config::standard().with_limit::<LIMIT>();
    let (assignments, _): (Vec<Vec<u32>>, usize) = bincode::serde::decode_from_slice(assignments, limited)
        .ok()
        .filter(|(_, n)| *n == assignments.len())
        .ok_or_else(|| unusable("its assignments cannot be understood".to_owned()))?;
    let plan = Plan {
        n_models: header.n_models,
        settings: header.settings,
        points: points(header.points, assignments, dense).map_err(unusable)?,
    };
    check(&plan, &header.graph, &header.models).map_err(unusable)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_rayon(&bytes);
    Ok(PlanFile {
        path: path.to_owned(),
        blake3: hasher.finalize().to_hex().to_string(),
        plan,
        graph: header.graph,
        models: header.models,
        provenance: header.provenance,
    })
}

/// Checks version, lengths and digest.
fn sections<'a>(path: &Path, bytes: &'a [u8]) -> Result<[&'a [u8]; 3]> {
    let damaged = |reason: &str| Error::damaged(path, Kind::Plan, reason);
    let version = bytes.get(8..12).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
    match version {
        Some(OLDEST..=PLAN_VERSION) => {}
        Some(found) => {
            return Err(Error::Version { path: path.to_owned(), kind: Kind::Plan, found, reads: PLAN_VERSION });
        }
        None => return Err(damaged("it is cut")),
    }
    let body = bytes.len().checked_sub(PREFIX + DIGEST).ok_or_else(|| damaged("it is cut"))?;
    let (content, digest) = bytes.split_at(bytes.len() - DIGEST);
    let mut hasher = blake3::Hasher::new();
    hasher.update_rayon(content);
    if hasher.finalize().as_bytes() != digest {
        return Err(damaged("its digest does not match its content"));
    }
    if content[12..16] != [CODEC, 0, 0, 0] {
        return Err(Error::contents(path, Kind::Plan, &format!("its codec is {}, expected {CODEC}", content[12])));
    }
    let lengths: Vec<u64> = numbers(&content[16..PREFIX]).map(u64::from_le_bytes).collect();
    if lengths.iter().try_fold(0_u64, |sum, &n| sum.checked_add(n)) != Some(body as u64) {
        return Err(damaged("its sections do not fill it"));
    }
    let (header, rest) = content[PREFIX..].split_at(lengths[0] as usize);
    let (assignments, dense) = rest.split_at(lengths[1] as usize);
    Ok([header, assignments, dense])
}

fn points(header: Vec<Point>, assignments: Vec<Vec<u32>>, mut dense: &[u8]) -> Result<Vec<PointPlan>, String> {
    if header.len() != assignments.len() {
        return Err(format!("{} points but {} assignments", header.len(), assignments.len()));
    }
    let mut points = Vec::with_capacity(header.len());
    for (point, assignment) in header.into_iter().zip(assignments) {
        if assignment.len() != point.n_joint {
            return Err(format!("`{}` assigns {} of {} features", point.name, assignment.len(), point.n_joint));
        }
        let mut map = |wanted: bool, what: &str, shape: (usize, usize)| {
            if !wanted {
                return Ok(None);
            }
            let (map, rest) = (shape.0.checked_mul(shape.1))
                .and_then(|n| dense.split_at_checked(n.checked_mul(4)?))
                .ok_or_else(|| format!("the {what} of `{}` is not there", point.name))?;
            dense = rest;
            let values = numbers(map).map(f32::from_le_bytes).collect();
            Array2::from_shape_vec(shape, values).map(Some).map_err(|e| format!("the {what} of `{}`: {e}", point.name))
        };
        let weights = map(point.weights, "weights", (1, point.n_joint))?.map(|map| map.into_raw_vec_and_offset().0);
        let merge = map(point.dense_merge, "merge", (point.n_groups, point.n_joint))?;
        let unmerge = map(point.dense_unmerge, "unmerge", (point.n_joint, point.n_groups))?;
        points.push(PointPlan {
            name: point.name,
            assignment,
            n_groups: point.n_groups,
            resting: point.resting,
            weights,
            merge,
            unmerge,
            summary: point.summary,
        });
    }
    if dense.is_empty() { Ok(points) } else { Err(format!("{} bytes of maps belong to no point", dense.len())) }
}
