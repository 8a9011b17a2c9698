//! What is made small: how far outputs are from what they are to be.

use super::settings::{Believed, Objective};
use crate::{Error, Result};
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

/// One output, and what is asked of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Aim {
    /// Of the network.
    pub output: usize,
    /// Who says what it is to be: source, and output of that.
    pub sources: Vec<(usize, usize)>,
    /// How much it counts; for distillation 1 / Var of what it is to be.
    pub weight: f64,
}

/// Which images count for which output, of those that a step sees.
#[derive(Debug, Clone, Copy)]
pub(super) enum Count<'a> {
    /// All for all, out of so many.
    All(usize),
    /// Each for one: whose it is, and how many there are of each.
    Own(&'a [usize], &'a BTreeMap<usize, usize>),
}

/// What outputs are to be, `[B, …]` for each aim, by what the sources say.
pub(super) fn targets(aims: &[Aim], said: &[Vec<Tensor>], believed: Believed) -> Result<Vec<Tensor>> {
    let of = |aim: &Aim| -> Result<Tensor> {
        let all: Vec<&Tensor> = aim.sources.iter().map(|&(source, output)| &said[source][output]).collect();
        match (&all[..], believed) {
            ([only], _) => Ok(only.shallow_clone()),
            (all, Believed::All) => Ok(Tensor::f_stack(all, 0)?.f_mean_dim(&[0_i64][..], false, None::<Kind>)?),
            (all, Believed::Surest) => surest(&Tensor::f_stack(all, 0)?),
        }
    };
    aims.iter().filter(|aim| !aim.sources.is_empty()).map(of).collect()
}

/// Of logits `[S, B, K]` those of the source with the largest probability, image by image.
fn surest(logits: &Tensor) -> Result<Tensor> {
    let [_, n, k] = logits.size()[..] else {
        return Err(Error::Request("which network is surest can be asked of vectors of logits alone".into()));
    };
    let sure = logits.f_softmax(2, Kind::Float)?.f_amax(&[2_i64][..], false)?;
    let chosen = sure.f_argmax(0, false)?.f_reshape([1, n, 1])?.f_expand([1, n, k], false)?;
    Ok(logits.f_gather(0, &chosen, false)?.f_squeeze_dim(0)?)
}

/// The images' part of the loss.
pub(super) fn loss(
    objective: Objective,
    aims: &[Aim],
    outputs: &[Tensor],
    targets: &[Tensor],
    count: Count<'_>,
) -> Result<Tensor> {
    let mut parts = Vec::new();
    let mut targets = targets.iter();
    for aim in aims {
        let output = &outputs[aim.output];
        let far = match objective {
            Objective::Distill => {
                let target = targets.next().ok_or_else(|| Error::Fault("an output without a target".into()))?;
                let per_image = output.numel() as f64 / output.size()[0].max(1) as f64;
                output.f_sub(target)?.f_square()?.f_sum(Kind::Float)?.f_div_scalar(per_image)?
            }
            Objective::CrossEntropy { temperature } => {
                let target = targets.next().ok_or_else(|| Error::Fault("an output without a target".into()))?;
                let log = |logits: &Tensor| logits.f_div_scalar(temperature)?.f_log_softmax(1, Kind::Float);
                let (own, wanted) = (log(output)?, log(target)?);
                let divergence = wanted.f_exp()?.f_mul(&wanted.f_sub(&own)?)?.f_sum(Kind::Float)?;
                let positions: i64 = output.size().iter().skip(2).product();
                divergence.f_mul_scalar(temperature * temperature / positions.max(1) as f64)?
            }
            Objective::Entropy => {
                let rows = match count {
                    Count::All(_) => output.shallow_clone(),
                    Count::Own(of, _) => {
                        let own = of.iter().zip(0_i64..).filter(|(of, _)| **of == aim.output);
                        let own: Vec<i64> = own.map(|(_, row)| row).collect();
                        output.f_index_select(0, &Tensor::f_from_slice(&own)?.f_to_device(output.device())?)?
                    }
                };
                let log = rows.f_log_softmax(1, Kind::Float)?;
                log.f_exp()?.f_mul(&log)?.f_sum(Kind::Float)?.f_neg()?
            }
        };
        let n = match count {
            Count::All(n) => n,
            Count::Own(_, n) => n.get(&aim.output).copied().unwrap_or(0),
        };
        parts.push(far.f_mul_scalar(aim.weight / n.max(1) as f64)?);
    }
    Ok(Tensor::f_stack(&parts, 0)?.f_sum(Kind::Float)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn aim(output: usize, sources: &[(usize, usize)], weight: f64) -> Aim {
        Aim { output, sources: sources.to_vec(), weight }
    }

    fn logits(rows: &[[f32; 2]]) -> Tensor {
        Tensor::from_slice(&rows.concat()).reshape([-1, 2])
    }

    #[test]
    fn distillation_counts_squares_in_units_of_the_sources_variance() {
        let aims = [aim(0, &[(0, 0)], 0.5), aim(1, &[(1, 0)], 2.0)];
        let outputs = [logits(&[[1.0, 2.0], [0.0, 0.0]]), logits(&[[1.0, 1.0], [1.0, 1.0]])];
        let said = [vec![logits(&[[1.0, 0.0], [0.0, 2.0]])], vec![logits(&[[0.0, 1.0], [1.0, 1.0]])]];
        let targets = targets(&aims, &said, Believed::Surest).unwrap();
        let of = |n| loss(Objective::Distill, &aims, &outputs, &targets, Count::All(n)).unwrap().double_value(&[]);
        // (4 + 4) / 2 classes · 0.5 + 1 / 2 · 2, over two images.
        assert!((of(2) - 1.5).abs() < 1e-6, "{}", of(2));
        assert!((of(4) - 0.75).abs() < 1e-6, "half of a step's images");
    }

    #[test]
    fn nothing_is_far_from_itself() {
        let aims = [aim(0, &[(0, 0)], 1.0)];
        let same = logits(&[[3.0, -1.0], [0.5, 0.25]]);
        let objective = Objective::CrossEntropy { temperature: 2.0 };
        let of = |output: &Tensor| {
            let outputs = [output.shallow_clone()];
            let targets = [same.shallow_clone()];
            loss(objective, &aims, &outputs, &targets, Count::All(2)).unwrap().double_value(&[])
        };
        assert!(of(&same).abs() < 1e-6 && of(&(&same * 2.0)) > 0.1);
        assert!(of(&(&same + 5.0)).abs() < 1e-6, "a softmax knows no shift");
    }

    #[test]
    fn entropy_is_of_an_outputs_own_images() {
        let aims = [aim(0, &[], 1.0), aim(1, &[], 1.0)];
        let outputs = [logits(&[[0.0, 0.0], [9.0, -9.0], [0.0, 0.0]]), logits(&[[0.0, 0.0], [0.0, 0.0], [50.0, 0.0]])];
        let n = BTreeMap::from([(0, 2), (1, 1)]);
        let found = loss(Objective::Entropy, &aims, &outputs, &[], Count::Own(&[0, 0, 1], &n)).unwrap();
        assert!((found.double_value(&[]) - 0.5 * 2.0_f64.ln()).abs() < 1e-5, "{found:?}");
    }

    #[test]
    fn the_surest_source_is_believed() {
        let aims = [aim(0, &[(0, 0), (1, 0)], 1.0)];
        let said = [vec![logits(&[[9.0, 0.0], [1.0, 0.0]])], vec![logits(&[[0.0, 1.0], [0.0, 9.0]])]];
        let surest = targets(&aims, &said, Believed::Surest).unwrap();
        assert_eq!(Vec::<f32>::try_from(surest[0].flatten(0, 1)).unwrap(), [9.0, 0.0, 0.0, 9.0]);
        let all = targets(&aims, &said, Believed::All).unwrap();
        assert_eq!(Vec::<f32>::try_from(all[0].flatten(0, 1)).unwrap(), [4.5, 0.5, 0.5, 4.5]);
    }
}
