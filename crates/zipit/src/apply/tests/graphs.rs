//! The graphs that are tested: from builders, and written by hand for what no builder makes.

use crate::graph::{
    Activation, Arch, ArchSpec, Call, Combination, Graph, Input, Length, Node, Op, Reduction, VggHead, Window,
};

/// Small networks of every kind.
pub fn zoo() -> Vec<Graph> {
    let spec = |arch, width, size| ArchSpec::new(arch, width, 2, [size; 2], 3);
    let three = ArchSpec { projection_kernel: 3, ..spec(Arch::ResNet20, 0.25, 8) };
    let vgg = |head, size| ArchSpec { vgg_head: head, ..spec(Arch::Vgg11Bn, 0.07, size) };
    let mut graphs: Vec<Graph> = [
        spec(Arch::ResNet20, 0.3, 8),
        three,
        spec(Arch::ResNet18, 0.1, 32),
        spec(Arch::ResNet50, 0.05, 32),
        vgg(VggHead::Linear { pool: None }, 64),
        vgg(VggHead::Linear { pool: Some([1, 2]) }, 32),
        vgg(VggHead::Mlp { hidden: 6 }, 32),
    ]
    .iter()
    .map(|spec| spec.build().unwrap())
    .collect();
    graphs.push(oddities());
    graphs
}

/// Everything the builders do not make: batch normalisation of the input, depthwise convolution, concatenations of
/// concatenations and of the input, average pooling, a dead end, Linear without bias, two outputs.
pub fn oddities() -> Graph {
    let conv = |i, o, kernel, groups| Op::Conv2d {
        in_channels: i,
        out_channels: o,
        window: Window::square(kernel, 1, kernel / 2),
        groups,
        bias: groups > 1,
    };
    let bn = |c| Op::BatchNorm2d { num_features: c, eps: 1e-3 };
    let pool = Op::AvgPool2d { window: Window::square(3, 2, 1), count_include_pad: true };
    let linear = |i, o, bias| Op::Linear { in_features: i, out_features: o, bias };
    let nodes = [
        ("bn0", bn(2), "x"),
        ("a", conv(2, 4, 3, 1), "bn0"),
        ("a.relu", Op::Relu, "a"),
        ("b", conv(2, 5, 1, 1), "x"),
        ("ab", Op::Concat, "a.relu b"),
        ("ab.bn", bn(9), "ab"),
        ("depthwise", conv(9, 9, 3, 9), "ab.bn"),
        ("abx", Op::Concat, "depthwise x"),
        ("dead", conv(11, 3, 1, 1), "abx"),
        ("c", conv(11, 6, 3, 1), "abx"),
        ("c.relu", Op::Relu, "c"),
        ("abc", Op::Concat, "c.relu ab.bn"),
        ("pool", pool, "abc"),
        ("abc.flatten", Op::Flatten, "pool"),
        ("hidden", linear(15 * 4, 7, false), "abc.flatten"),
        ("hidden.relu", Op::Relu, "hidden"),
        ("head", linear(7, 3, true), "hidden.relu"),
        ("c.flatten", Op::Flatten, "c.relu"),
        ("early", linear(6 * 16, 2, false), "c.flatten"),
    ];
    Graph {
        arch: "oddities".into(),
        input: Input { name: "x".into(), shape: vec![2, 4, 4] },
        nodes: nodes
            .into_iter()
            .map(|(name, op, inputs)| Node {
                name: name.into(),
                module: (!op.params().is_empty()).then(|| format!("net.{name}")),
                op,
                inputs: inputs.split_whitespace().map(Into::into).collect(),
                params: std::collections::BTreeMap::new(),
            })
            .collect(),
        outputs: vec!["head".into(), "early".into()],
    }
}

/// A head of a convolution, as `SqueezeNet`'s.
pub fn convolutional() -> Graph {
    let nodes = vec![
        ("a", conv(2, 6, 3, 1), "x"),
        ("a.relu", Op::Relu, "a"),
        ("b", conv(6, 5, 3, 1), "a.relu"),
        ("b.relu", Op::Relu, "b"),
        ("classes", conv(5, 3, 1, 1), "b.relu"),
        ("classes.relu", Op::Relu, "classes"),
        ("pool", Op::AdaptiveAvgPool2d { output: [1, 1] }, "classes.relu"),
        ("flatten", Op::Flatten, "pool"),
    ];
    network("convolutional", [2, 6, 6], nodes, "flatten")
}

/// What newer networks are made of, which no builder makes: groups of channels, attention heads, norms of each sample,
/// gates, learned tokens and scales, features split and shuffled.
pub fn modern() -> Vec<Graph> {
    vec![grouped(), transformer(), shuffled(), windows(), carried(), tied(), uneven(), responses()]
}

/// Networks whose outputs are no vectors of logits.
pub fn dense() -> Vec<Graph> {
    vec![maps(), features()]
}

/// A map of classes, the residual stream that it is computed from, and logits.
fn maps() -> Graph {
    let nodes = vec![
        ("a", conv(2, 6, 3, 1), "x"),
        ("a.relu", Op::Relu, "a"),
        ("b", conv(6, 8, 3, 1), "a.relu"),
        ("b.relu", Op::Relu, "b"),
        ("c", conv(8, 6, 1, 1), "b.relu"),
        ("stream", Op::Add, "a.relu c"),
        ("d", conv(6, 5, 3, 1), "stream"),
        ("d.relu", Op::Relu, "d"),
        ("classes", conv(5, 3, 1, 1), "d.relu"),
        ("map", positions(Call::Roll { shifts: vec![1], dims: vec![2] }, &[3, 4, 4]), "classes"),
        ("mean", Op::Mean, "d.relu"),
        ("logits", linear(5, 4), "mean"),
    ];
    Graph {
        outputs: ["map", "stream", "logits"].map(str::to_owned).to_vec(),
        ..network("maps", [2, 4, 4], nodes, "map")
    }
}

/// Outputs that are inner values, shuffled, put together from parts, of the image alone or added to it; carried ones; one
/// number for each image; one that is given twice.
fn features() -> Graph {
    let call = |call, shape: &[usize]| Op::Call { call, shape: shape.to_vec() };
    let pool = Op::AvgPool2d { window: Window::square(2, 2, 0), count_include_pad: true };
    let nodes = vec![
        ("pooled", pool, "x"),
        ("pooled.up", Op::Pad { padding: [1, 1, 1, 1], value: 0.5 }, "pooled"),
        ("left", conv(2, 4, 3, 1), "x"),
        ("right", conv(2, 4, 1, 1), "x"),
        ("both", Op::Concat, "left right"),
        ("shuffled", Op::ChannelShuffle { groups: 2 }, "both"),
        ("e", conv(8, 6, 3, 1), "shuffled"),
        ("e.relu", Op::Relu, "e"),
        ("f", linear(6, 5), "e.relu"),
        ("turned", call(Call::Permute { dims: vec![0, 2, 3, 1] }, &[1, 4, 4, 5]), "f"),
        ("g", conv(6, 2, 3, 1), "e.relu"),
        ("restored", Op::Add, "g x"),
        ("h", conv(2, 5, 3, 1), "restored"),
        ("h.relu", Op::Relu, "h"),
        ("wide", Op::Concat, "h.relu pooled.up"),
        ("k", conv(7, 5, 1, 1), "wide"),
        ("k.relu", Op::Relu, "k"),
        ("mean", Op::Mean, "k.relu"),
        ("turned.mean", call(Call::Affine { scale: 0.5, shift: 0.1 }, &[1, 5]), "mean"),
        ("number", linear(5, 1), "mean"),
        ("number.flat", call(Call::Reshape { shape: vec![Length::PerImage { per_image: 1 }] }, &[1]), "number"),
        ("logits", linear(5, 4), "mean"),
    ];
    let outputs = "pooled shuffled turned restored wide turned.mean number.flat logits logits";
    Graph {
        outputs: outputs.split_whitespace().map(Into::into).collect(),
        ..network("features", [2, 4, 4], nodes, "logits")
    }
}

fn network(arch: &str, shape: [usize; 3], nodes: Vec<(&str, Op, &str)>, output: &str) -> Graph {
    let node = |(name, op, inputs): (&str, Op, &str)| Node {
        module: (!op.params().is_empty()).then(|| format!("net.{name}")),
        ..Node::new(name, op, inputs.split_whitespace().map(Into::into).collect())
    };
    Graph {
        arch: arch.into(),
        input: Input { name: "x".into(), shape: shape.to_vec() },
        nodes: nodes.into_iter().map(node).collect(),
        outputs: vec![output.into()],
    }
}

fn conv(i: usize, o: usize, kernel: usize, groups: usize) -> Op {
    Op::Conv2d {
        in_channels: i,
        out_channels: o,
        window: Window::square(kernel, 1, kernel / 2),
        groups,
        bias: groups > 1,
    }
}

fn linear(i: usize, o: usize) -> Op {
    Op::Linear { in_features: i, out_features: o, bias: true }
}

fn activation(function: Activation) -> Op {
    Op::Activation { function }
}

/// Grouped convolutions that keep and that change the width of their blocks, a depthwise multiplier, GroupNorm, a gate.
fn grouped() -> Graph {
    let norm = |groups, c| Op::GroupNorm { num_groups: groups, num_features: c, eps: 1e-3 };
    let nodes = vec![
        ("stem", conv(2, 6, 3, 1), "x"),
        ("pad", Op::Pad { padding: [1, 0, 0, 1], value: 0.5 }, "stem"),
        ("a", conv(6, 8, 1, 1), "pad"),
        ("a.act", activation(Activation::Hardswish), "a"),
        ("groups", conv(8, 12, 3, 4), "a.act"),
        ("groups.norm", norm(4, 12), "groups"),
        ("pool", Op::AdaptiveAvgPool2d { output: [1, 1] }, "groups.norm"),
        ("squeeze", conv(12, 3, 1, 1), "pool"),
        ("squeeze.act", activation(Activation::Silu), "squeeze"),
        ("excite", conv(3, 12, 1, 1), "squeeze.act"),
        ("gate", activation(Activation::Sigmoid), "excite"),
        ("gated", Op::Mul, "groups.norm gate"),
        ("b", conv(12, 6, 1, 1), "gated"),
        ("scale", Op::LayerScale { shape: vec![6, 1, 1], axis: 0 }, "b"),
        ("add", Op::Add, "scale pad"),
        ("c", conv(6, 5, 1, 1), "add"),
        ("multiplier", conv(5, 10, 3, 5), "c"),
        ("norm", norm(1, 10), "multiplier"),
        ("mean", Op::Mean, "norm"),
        ("head", linear(10, 3), "mean"),
    ];
    network("grouped", [2, 5, 4], nodes, "head")
}

/// Two blocks of a vision transformer: one with a fused, one with three projections.
fn transformer() -> Graph {
    let norm = || Op::LayerNorm { num_features: 8, eps: 1e-5, bias: true };
    let slice = |from, to| Op::Slice { ranges: vec![[from, to]] };
    let attention = || Op::Attention { heads: 2, scale: None, bias: None };
    let nodes = vec![
        ("patches", conv(2, 8, 1, 1), "x"),
        ("tokens", Op::Tokens, "patches"),
        ("class", Op::PrependTokens { num_tokens: 1, num_features: 8 }, "tokens"),
        ("embedded", Op::PositionEmbedding { shape: vec![1, 13, 8], axis: 2 }, "class"),
        ("norm1", norm(), "embedded"),
        ("qkv", linear(8, 22), "norm1"),
        ("q", slice(0, 8), "qkv"),
        ("k", slice(8, 16), "qkv"),
        ("v", slice(16, 22), "qkv"),
        ("attention", attention(), "q k v"),
        ("projection", linear(6, 8), "attention"),
        ("scale", Op::LayerScale { shape: vec![8], axis: 0 }, "projection"),
        ("add1", Op::Add, "embedded scale"),
        ("norm2", norm(), "add1"),
        ("up", linear(8, 9), "norm2"),
        ("act", activation(Activation::Tanh), "up"),
        ("down", linear(9, 8), "act"),
        ("add2", Op::Add, "add1 down"),
        ("q2", linear(8, 4), "add2"),
        ("k2", linear(8, 4), "add2"),
        ("v2", linear(8, 6), "add2"),
        ("attention2", attention(), "q2 k2 v2"),
        ("projection2", linear(6, 8), "attention2"),
        ("add3", Op::Add, "add2 projection2"),
        ("norm3", norm(), "add3"),
        ("token", Op::SelectToken { index: 0 }, "norm3"),
        ("head", linear(8, 3), "token"),
    ];
    network("transformer", [2, 3, 4], nodes, "head")
}

fn positions(call: Call, shape: &[usize]) -> Op {
    Op::Positions { call, shape: shape.to_vec() }
}

/// A value `[1, features, …]` of one image.
fn reshaped(features: usize, positions: &[usize]) -> Call {
    let rest = positions.iter().map(|&n| Length::Fixed(n));
    Call::Reshape {
        shape: [Length::PerImage { per_image: 1 }, Length::Fixed(features)].into_iter().chain(rest).collect(),
    }
}

/// A block of a Swin transformer: shifted windows of 2×2 with a bias for every head and a mask for every window, and
/// patches that become features; tokens are joined.
fn windows() -> Graph {
    // Queries, keys and values of a head stand side by side.
    let slice = |from, to| Op::Slice { ranges: vec![[from, to], [from + 8, to + 8]] };
    let row = |start| positions(Call::Slice { dim: 3, start, end: Length::Fixed(4), step: 2 }, &[6, 4, 2]);
    let roll = |by| Call::Roll { shifts: vec![by, by], dims: vec![2, 3] };
    let nodes = vec![
        ("patches", conv(2, 6, 1, 1), "x"),
        ("norm", Op::LayerNorm { num_features: 6, eps: 1e-5, bias: true }, "patches"),
        ("shifted", positions(roll(-1), &[6, 4, 4]), "norm"),
        ("apart", positions(reshaped(6, &[2, 2, 2, 2]), &[6, 2, 2, 2, 2]), "shifted"),
        ("turned", positions(Call::Permute { dims: vec![0, 1, 2, 4, 3, 5] }, &[6, 2, 2, 2, 2]), "apart"),
        ("windows", positions(reshaped(6, &[4, 4]), &[6, 4, 4]), "turned"),
        ("qkv", linear(6, 16), "windows"),
        ("q", slice(0, 2), "qkv"),
        ("k", slice(2, 4), "qkv"),
        ("v", slice(4, 8), "qkv"),
        ("attention", Op::Attention { heads: 2, scale: Some(0.3), bias: Some([4, 2, 4, 4]) }, "q k v"),
        ("projection", linear(8, 6), "attention"),
        ("apart2", positions(reshaped(6, &[2, 2, 2, 2]), &[6, 2, 2, 2, 2]), "projection"),
        ("turned2", positions(Call::Permute { dims: vec![0, 1, 2, 4, 3, 5] }, &[6, 2, 2, 2, 2]), "apart2"),
        ("image", positions(reshaped(6, &[4, 4]), &[6, 4, 4]), "turned2"),
        ("back", positions(roll(1), &[6, 4, 4]), "image"),
        ("add", Op::Add, "patches back"),
        ("even", row(0), "add"),
        ("odd", row(1), "add"),
        ("merged", Op::Concat, "even odd"),
        ("norm2", Op::LayerNorm { num_features: 12, eps: 1e-5, bias: true }, "merged"),
        ("reduction", linear(12, 7), "norm2"),
        (
            "most",
            positions(Call::Reduce { function: Reduction::Amax, dims: vec![3], keepdim: true }, &[7, 4, 1]),
            "reduction",
        ),
        ("joined", Op::Join { axis: 2 }, "reduction most"),
        ("q2", linear(7, 4), "joined"),
        ("attention2", Op::Attention { heads: 2, scale: None, bias: Some([1, 1, 3, 3]) }, "q2 q2 q2"),
        ("mean", Op::Mean, "attention2"),
        ("head", linear(4, 3), "mean"),
    ];
    network("windows", [2, 4, 4], nodes, "head")
}

/// What is not followed stands between layers that are: it reads merged features, some of them in another order, and
/// makes new ones; and in the head.
fn carried() -> Graph {
    let call = |call, shape: &[usize]| Op::Call { call, shape: shape.to_vec() };
    let nodes = vec![
        ("a", conv(2, 5, 3, 1), "x"),
        ("b", conv(2, 5, 1, 1), "x"),
        ("both", Op::Concat, "a b"),
        ("shuffled", Op::ChannelShuffle { groups: 2 }, "both"),
        // Neighbours among features: no order but its own leaves this what it is.
        ("rolled", call(Call::Roll { shifts: vec![1], dims: vec![1] }, &[1, 10, 3, 4]), "shuffled"),
        ("gain", Op::Stored { shape: vec![10, 1, 4] }, ""),
        ("gained", call(Call::Combine { function: Combination::Mul }, &[1, 10, 3, 4]), "rolled gain"),
        ("turned", call(Call::Permute { dims: vec![0, 2, 3, 1] }, &[1, 3, 4, 10]), "gained"),
        ("followed", Op::Follow { shape: vec![3, 4, 10], axis: 2 }, "turned"),
        ("c", linear(10, 6), "followed"),
        ("relu", Op::Relu, "c"),
        ("again", call(Call::Affine { scale: 0.5, shift: 0.1 }, &[1, 6, 3, 4]), "relu"),
        ("stream", Op::Follow { shape: vec![6, 3, 4], axis: 0 }, "again"),
        ("sum", Op::Add, "relu stream"),
        ("norm", Op::BatchNorm2d { num_features: 6, eps: 1e-3 }, "sum"),
        ("mean", Op::Mean, "norm"),
        ("last", call(Call::Roll { shifts: vec![2], dims: vec![1] }, &[1, 6]), "mean"),
        ("read", Op::Follow { shape: vec![6], axis: 0 }, "last"),
        ("head", linear(6, 3), "read"),
    ];
    network("carried", [2, 3, 4], nodes, "head")
}

/// Features divided by their power mean: a response normalised over positions, which gates what it is of, and `RMSNorm`.
fn responses() -> Graph {
    let norm = |num_features, power| Op::PowerMeanNorm { num_features, power, eps: 1e-2 };
    let nodes = vec![
        ("stem", conv(2, 5, 3, 1), "x"),
        ("rms", norm(5, 2), "stem"),
        ("wide", conv(5, 8, 1, 1), "rms"),
        ("relu", Op::Relu, "wide"),
        (
            "response",
            positions(Call::Reduce { function: Reduction::Norm, dims: vec![2, 3], keepdim: true }, &[8, 1, 1]),
            "relu",
        ),
        ("relative", norm(8, 1), "response"),
        ("gated", Op::Mul, "relu relative"),
        ("scaled", Op::LayerScale { shape: vec![8, 1, 1], axis: 0 }, "gated"),
        ("both", Op::Add, "relu scaled"),
        ("narrow", conv(8, 5, 1, 1), "both"),
        ("sum", Op::Add, "stem narrow"),
        ("mean", Op::Mean, "sum"),
        ("head", linear(5, 3), "mean"),
    ];
    network("responses", [2, 3, 4], nodes, "head")
}

/// Blocks that are put together from parts, and features in blocks of two sizes, stay every model's own; what lies between
/// is merged.
fn uneven() -> Graph {
    let nodes = vec![
        ("a", conv(2, 3, 1, 1), "x"),
        ("b", conv(2, 5, 3, 1), "x"),
        ("ab", Op::Concat, "a b"),
        ("parts", conv(8, 4, 3, 2), "ab"),
        ("c", conv(4, 6, 1, 1), "parts"),
        ("relu", Op::Relu, "c"),
        ("s", conv(6, 8, 1, 1), "relu"),
        ("shuffle", Op::ChannelShuffle { groups: 2 }, "s"),
        ("shuffled", conv(8, 4, 1, 2), "shuffle"),
        ("some", Op::Slice { ranges: vec![[1, 3], [6, 7]] }, "shuffle"),
        ("beside", Op::Concat, "some shuffled relu"),
        ("d", conv(13, 8, 1, 1), "beside"),
        ("four", conv(8, 8, 1, 4), "d"),
        ("two", conv(8, 8, 3, 2), "four"),
        ("norm", Op::GroupNorm { num_groups: 4, num_features: 8, eps: 1e-3 }, "two"),
        ("q", conv(8, 4, 1, 1), "norm"),
        ("k", conv(8, 4, 1, 1), "norm"),
        ("v", conv(8, 2, 1, 1), "norm"),
        ("w", conv(8, 4, 1, 1), "norm"),
        ("vw", Op::Concat, "v w"),
        ("qt", Op::Tokens, "q"),
        ("kt", Op::Tokens, "k"),
        ("vt", Op::Tokens, "vw"),
        ("attend", Op::Attention { heads: 2, scale: Some(0.7), bias: Some([1, 2, 12, 12]) }, "qt kt vt"),
        ("e", linear(6, 5), "attend"),
        ("act", activation(Activation::Tanh), "e"),
        ("mean", Op::Mean, "act"),
        ("head", linear(5, 3), "mean"),
    ];
    network("uneven", [2, 3, 4], nodes, "head")
}

/// Cheap copies of features beside them (`GhostNet`) and a gated unit (GLU): features of one layer that are tied to each
/// other stay every model's own, and what lies between is merged.
fn tied() -> Graph {
    let slice = |from, to| Op::Slice { ranges: vec![[from, to]] };
    let nodes = vec![
        ("a", conv(2, 4, 3, 1), "x"),
        ("cheap", conv(4, 4, 3, 4), "a"),
        ("ghost", Op::Concat, "a cheap"),
        ("b", conv(2, 8, 1, 1), "x"),
        ("sum", Op::Add, "ghost b"),
        ("c", conv(8, 6, 1, 1), "sum"),
        ("relu", Op::Relu, "c"),
        ("up", linear(6, 10), "relu"),
        ("first", slice(0, 5), "up"),
        ("last", slice(5, 10), "up"),
        ("gate", activation(Activation::Sigmoid), "last"),
        ("glu", Op::Mul, "first gate"),
        ("d", linear(5, 7), "glu"),
        ("act", activation(Activation::Tanh), "d"),
        ("mean", Op::Mean, "act"),
        ("head", linear(7, 3), "mean"),
    ];
    network("tied", [2, 3, 4], nodes, "head")
}

/// Three units of a ShuffleNet: features split, some of them worked on, put together and shuffled.
fn shuffled() -> Graph {
    let slice = |from, to| Op::Slice { ranges: vec![[from, to]] };
    let shuffle = || Op::ChannelShuffle { groups: 2 };
    let nodes = vec![
        ("left", conv(2, 6, 3, 1), "x"),
        ("right", conv(2, 6, 1, 1), "x"),
        ("both", Op::Concat, "left right"),
        ("shuffle", shuffle(), "both"),
        ("keep1", slice(0, 6), "shuffle"),
        ("work1", slice(6, 12), "shuffle"),
        ("a1", conv(6, 6, 1, 1), "work1"),
        ("relu1", Op::Relu, "a1"),
        ("depthwise", conv(6, 6, 3, 6), "relu1"),
        ("join1", Op::Concat, "keep1 depthwise"),
        ("shuffle1", shuffle(), "join1"),
        ("depthwise1", conv(12, 12, 3, 12), "shuffle1"),
        ("keep2", slice(0, 6), "depthwise1"),
        ("work2", slice(6, 12), "depthwise1"),
        ("a2", conv(6, 6, 3, 1), "work2"),
        ("join2", Op::Concat, "keep2 a2"),
        ("shuffle2", shuffle(), "join2"),
        ("last", conv(12, 7, 1, 1), "shuffle2"),
        ("mean", Op::Mean, "last"),
        ("flat", Op::Flatten, "shuffle2"),
        ("also", linear(12 * 12, 4), "flat"),
        ("summary", Op::Concat, "mean also"),
        ("head", linear(11, 3), "summary"),
    ];
    network("shuffled", [2, 3, 4], nodes, "head")
}
