//! `match`: a few merge points of the sizes at hand; larger ones by how time grows with size.

use super::{Taken, Time, models};
use ndarray::Array2;
use std::collections::BTreeMap;
use std::time::Instant;
use zipit::Moments;
use zipit::matching::{Method, Similarity, match_features};
use zipit::memory::{self, Work};
use zipit::merge_set::Selection;
use zipit::plan::{PointNature, PointPlan};
use zipit::unmerge::UnmergeRule;
use zipit_artifact::model::ModelFile;
use zipit_stage::Stage;

/// Joint features of the largest point that is tried.
const LARGEST: usize = 640;
/// What `match` does unless it is told otherwise.
const METHOD: Method = Method::Ward { similarity: Similarity::Correlation };
const RULE: UnmergeRule = UnmergeRule::Covariance { ridge: 1e-3 };
/// Bytes of moments that are read and checked in a second.
const READ: f64 = 1e9;
/// Seconds in which the program starts.
const START: f64 = 0.02;

pub fn try_out(files: &[ModelFile], stage: &Stage) -> anyhow::Result<Taken> {
    let models = models(files);
    let n_models = models.len();
    let graph = &models[0].graph;
    let points = Selection::default().divide(graph, n_models)?.points;
    let dims: Vec<usize> = points.iter().map(|point| point.dim).collect();
    let sizes: Vec<usize> = dims.iter().map(|d| n_models * d).collect();
    let largest = sizes.iter().copied().max().unwrap_or(0);
    let mut tried: Vec<usize> = sizes.iter().copied().filter(|&n| n <= LARGEST).collect();
    if largest > LARGEST {
        tried.extend([LARGEST / 2, LARGEST].map(|n| n / n_models * n_models));
    }
    tried.sort_unstable();
    tried.dedup();
    let mut took: BTreeMap<usize, f64> = BTreeMap::new();
    let before = Time::now(stage);
    for &n in &tried {
        took.insert(n, one(n, n_models)?);
    }
    let all = Time::now(stage) - before;
    // Hundredths of a second are too coarse for little.
    let busy = if all.cpu > 0.2 { all.cpu / all.wall } else { 1.0 };
    let seconds = |n: usize| took.get(&n).copied().unwrap_or_else(|| extrapolated(&took, n));
    let n_threads = stage.n_threads();
    // The points that are at work at the same time.
    let together: Vec<&[usize]> = sizes.chunks(n_threads).collect();
    let wall = together.iter().map(|sizes| sizes.iter().map(|&n| seconds(n)).fold(0.0, f64::max)).sum();
    let bytes = sizes.iter().map(|n| n * n * 4).sum::<usize>() as f64;
    let read = START + bytes / READ;
    let read = Time { wall: read, cpu: read };
    Ok(Taken {
        fixed: Time { wall, cpu: busy * sizes.iter().map(|&n| seconds(n)).sum::<f64>() } + read,
        memory: memory::matching(&dims, Work { n_models, batch_size: 0, n_threads }) as f64,
        ..Taken::default()
    })
}

/// Seconds that one point of n joint features takes, by moments of made-up ones.
fn one(n: usize, n_models: usize) -> anyhow::Result<f64> {
    let moments = made_up(n);
    let started = Instant::now();
    let matching = match_features(&METHOD, &moments, n_models, n / n_models)?;
    PointPlan::new("trial", &matching, &moments, n_models, &RULE, PointNature::default())?;
    Ok(started.elapsed().as_secs_f64())
}

/// By the power law through the two largest sizes that were tried, between the square and the cube.
fn extrapolated(took: &BTreeMap<usize, f64>, n: usize) -> f64 {
    let mut largest = took.iter().rev();
    let (Some((&n1, &t1)), Some((&n0, &t0))) = (largest.next(), largest.next()) else { return 0.0 };
    let power = ((t1 / t0).ln() / (n1 as f64 / n0 as f64).ln()).clamp(2.0, 3.0);
    t1 * (n as f64 / n1 as f64).powf(power)
}

fn made_up(n: usize) -> Moments {
    let mut state = 1_u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32
    };
    // Features that share a part, as real ones do.
    let samples = Array2::from_shape_fn((2 * n, n), |(_, j)| noise() * (1.0 + (j % 7) as f32));
    let mut moments = Moments::zeros(n);
    moments.add_batch(2 * n as u64, &samples.sum_axis(ndarray::Axis(0)).to_vec(), samples.t().dot(&samples).view());
    moments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_grows_as_a_power_of_the_size() {
        let took = BTreeMap::from([(100, 1.0), (200, 6.0)]);
        let power = 6.0_f64.log2();
        assert!((extrapolated(&took, 400) - 6.0 * 2.0_f64.powf(power)).abs() < 1e-9);
        // Noise does not make it less than the square or more than the cube.
        assert!((extrapolated(&BTreeMap::from([(100, 1.0), (200, 1.0)]), 400) - 4.0).abs() < 1e-9);
        assert!((extrapolated(&BTreeMap::from([(100, 1.0), (200, 30.0)]), 400) - 240.0).abs() < 1e-9);
    }
}
