//! The shape of what an op makes, and what it refuses to read.

use super::{Op, Window};

/// Shape of the positions of an image.
type Size = [usize; 2];

impl Op {
    /// Shape of the value it makes from values of `inputs` shapes, all without the batch.
    ///
    /// # Errors
    /// The reason why the inputs do not fit.
    pub fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let one = || match inputs {
            [only] => Ok(*only),
            _ => Err(format!("needs one input, has {}", inputs.len())),
        };
        let image = || match one()? {
            &[c, h, w] => Ok((c, [h, w])),
            other => Err(format!("needs a [C, H, W] value, is given {other:?}")),
        };
        let tokens = || match one()? {
            &[c, t] => Ok((c, t)),
            other => Err(format!("needs a [C, T] value, is given {other:?}")),
        };
        match self {
            Self::Conv2d { in_channels, out_channels, window, groups, .. } => {
                let (c, size) = image()?;
                expect_features(c, *in_channels, "channels")?;
                if *groups == 0 || !in_channels.is_multiple_of(*groups) || !out_channels.is_multiple_of(*groups) {
                    return Err(format!(
                        "{groups} groups do not divide {in_channels} input and {out_channels} output channels"
                    ));
                }
                let [h, w] = slide(window, size)?;
                Ok(vec![*out_channels, h, w])
            }
            Self::Linear { in_features, out_features, .. } => match one()? {
                [f, positions @ ..] if f == in_features => Ok([&[*out_features], positions].concat()),
                other => Err(format!("expects {in_features} features, is given {other:?}")),
            },
            Self::BatchNorm2d { num_features, .. }
            | Self::LayerNorm { num_features, .. }
            | Self::PowerMeanNorm { num_features, .. } => {
                expect_features(one()?[0], *num_features, "channels")?;
                Ok(one()?.to_vec())
            }
            Self::GroupNorm { num_groups, num_features, .. } => {
                expect_features(one()?[0], *num_features, "channels")?;
                if *num_groups == 0 || !num_features.is_multiple_of(*num_groups) {
                    return Err(format!("{num_groups} groups do not divide {num_features} channels"));
                }
                Ok(one()?.to_vec())
            }
            Self::Relu | Self::Activation { .. } | Self::Affine { .. } => Ok(one()?.to_vec()),
            Self::MaxPool2d { window } | Self::AvgPool2d { window, .. } => {
                let (c, size) = image()?;
                let [h, w] = slide(window, size)?;
                Ok(vec![c, h, w])
            }
            Self::AdaptiveAvgPool2d { output } => Ok(vec![image()?.0, output[0], output[1]]),
            Self::Mean => Ok(vec![one()?[0]]),
            Self::Flatten => Ok(vec![one()?.iter().product()]),
            Self::Tokens => {
                let (c, [h, w]) = image()?;
                Ok(vec![c, h * w])
            }
            Self::SelectToken { index } => match tokens()? {
                (c, t) if *index < t => Ok(vec![c]),
                (_, t) => Err(format!("selects token {index} of {t}")),
            },
            Self::PrependTokens { num_tokens, num_features } => {
                let (c, t) = tokens()?;
                expect_features(c, *num_features, "features")?;
                Ok(vec![c, num_tokens + t])
            }
            Self::PositionEmbedding { shape, axis } | Self::LayerScale { shape, axis } => {
                let value = one()?;
                let Some((features, positions)) = split_axis(shape, *axis) else {
                    return Err(format!("a tensor {shape:?} has no axis {axis}"));
                };
                if features != value[0] || !repeats(&positions, &value[1..]) {
                    return Err(format!("a tensor {shape:?} with features along axis {axis} does not fit {value:?}"));
                }
                Ok(value.to_vec())
            }
            Self::Attention { heads, bias, .. } => attention(*heads, bias.as_ref(), inputs),
            Self::Add => broadcast(inputs, "adds"),
            Self::Mul => match inputs {
                [_, _] => broadcast(inputs, "multiplies"),
                _ => Err(format!("needs two inputs, has {}", inputs.len())),
            },
            Self::Concat => concatenated(inputs, 0),
            Self::Join { axis: 0 } => Err("joins features: that is a Concat".into()),
            Self::Join { axis } => concatenated(inputs, *axis),
            Self::Slice { ranges } => sliced(one()?, ranges),
            Self::ChannelShuffle { groups } => {
                let value = one()?;
                if *groups == 0 || !value[0].is_multiple_of(*groups) {
                    return Err(format!("{groups} groups do not divide {} channels", value[0]));
                }
                Ok(value.to_vec())
            }
            Self::Pad { padding: [left, right, top, bottom], .. } => {
                let (c, [h, w]) = image()?;
                Ok(vec![c, h + top + bottom, w + left + right])
            }
            Self::Stored { .. } | Self::Call { .. } | Self::Follow { .. } | Self::Positions { .. } => {
                self.said_shape(inputs)
            }
        }
    }

    /// Of the ops that say what shape they make.
    fn said_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        match (self, inputs) {
            (Self::Stored { shape }, []) => Ok(shape.clone()),
            (Self::Call { call, shape }, _) => call.check_inputs(inputs).map(|()| shape.clone()),
            (Self::Positions { call, shape }, [given]) => {
                call.check_positions(given)?;
                if shape.first() != given.first() {
                    return Err(format!("makes {shape:?} of {given:?}: the features are not the same"));
                }
                Ok(shape.clone())
            }
            (Self::Follow { shape, axis }, [given]) => {
                if *axis >= shape.len() || shape.iter().product::<usize>() != given.iter().product::<usize>() {
                    return Err(format!("axis {axis} of {shape:?} cannot be followed in {given:?}"));
                }
                let mut positions = shape.clone();
                let features = positions.remove(*axis);
                positions.insert(0, features);
                Ok(positions)
            }
            _ => Err(format!("reads {} values", inputs.len())),
        }
    }
}

fn slide(window: &Window, size: Size) -> Result<Size, String> {
    window.output(size).ok_or_else(|| {
        format!(
            "a {}×{} window does not fit {}×{} positions: the image is too small for this network",
            window.kernel[0], window.kernel[1], size[0], size[1]
        )
    })
}

fn expect_features(found: usize, expected: usize, word: &str) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("expects {expected} {word}, is given {found}")) }
}

/// A learned tensor's features and its positions: all other axes but leading ones.
pub(super) fn split_axis(shape: &[usize], axis: usize) -> Option<(usize, Vec<usize>)> {
    let features = *shape.get(axis)?;
    let others = shape.iter().enumerate().filter(|(i, _)| *i != axis).map(|(_, &n)| n);
    Some((features, others.skip_while(|&n| n == 1).collect()))
}

/// Whether a tensor of such positions is repeated to fill `value`'s, PyTorch's broadcasting.
fn repeats(positions: &[usize], value: &[usize]) -> bool {
    positions.len() <= value.len()
        && positions.iter().rev().zip(value.iter().rev()).all(|(own, wanted)| own == wanted || *own == 1)
}

fn broadcast(inputs: &[&[usize]], verb: &str) -> Result<Vec<usize>, String> {
    let (first, rest) = inputs.split_first().ok_or("needs at least one input")?;
    let mut shape = first.to_vec();
    for other in rest {
        let fits = other.len() == shape.len()
            && other[0] == shape[0]
            && other.iter().zip(&shape).all(|(a, b)| a == b || *a == 1 || *b == 1);
        if !fits {
            return Err(format!("{verb} {first:?} and {other:?}"));
        }
        shape.iter_mut().zip(*other).for_each(|(a, &b)| *a = (*a).max(b));
    }
    Ok(shape)
}

fn concatenated(inputs: &[&[usize]], axis: usize) -> Result<Vec<usize>, String> {
    let (first, rest) = inputs.split_first().ok_or("needs at least one input")?;
    let mut shape = first.to_vec();
    for other in rest {
        let fits = other.len() == shape.len() && (0..shape.len()).all(|i| i == axis || other[i] == shape[i]);
        if !fits || axis >= shape.len() {
            return Err(format!("concatenates {first:?} and {other:?}"));
        }
        shape[axis] += other[axis];
    }
    Ok(shape)
}

fn sliced(value: &[usize], ranges: &[[usize; 2]]) -> Result<Vec<usize>, String> {
    if let Some([from, to]) = ranges.iter().find(|[from, to]| from >= to || *to > value[0]) {
        return Err(format!("takes features {from} to {to} of {}", value[0]));
    }
    let mut shape = value.to_vec();
    shape[0] = ranges.iter().map(|[from, to]| to - from).sum();
    Ok(shape)
}

fn attention(heads: usize, bias: Option<&[usize; 4]>, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
    let &[queries, keys, values] = inputs else {
        return Err(format!("needs queries, keys and values [C, T], is given {inputs:?}"));
    };
    let (&[q, ref windows @ .., n_queries], &[k, ref of_keys @ .., n_keys], &[v, ref of_values @ .., n_values]) =
        (queries, keys, values)
    else {
        return Err(format!("needs queries, keys and values [C, T], is given {inputs:?}"));
    };
    if q != k || n_keys != n_values || windows != of_keys || windows != of_values {
        return Err(format!("compares queries {queries:?} with keys {keys:?} of values {values:?}"));
    }
    if heads == 0 || !q.is_multiple_of(heads) || !v.is_multiple_of(heads) {
        return Err(format!("{heads} heads do not divide {q} and {v} features"));
    }
    let n_windows: usize = windows.iter().product();
    if let Some(shape) = bias {
        let fits = |own: usize, wanted: usize| own == wanted || own == 1;
        if !fits(shape[0], n_windows) || !fits(shape[1], heads) || shape[2..] != [n_queries, n_keys] {
            return Err(format!("a bias {shape:?} does not fit scores [{n_windows}, {heads}, {n_queries}, {n_keys}]"));
        }
    }
    Ok([&[v], windows, &[n_queries]].concat())
}
