use super::{Activation, Call, Fixed, Graph, Input, Node, Op, Space, Window};
use crate::StateDict;
use ndarray::ArrayD;
use std::collections::BTreeMap;

fn conv(i: usize, o: usize, groups: usize) -> Op {
    Op::Conv2d { in_channels: i, out_channels: o, window: Window::square(3, 1, 1), groups, bias: false }
}

fn linear(i: usize, o: usize) -> Op {
    Op::Linear { in_features: i, out_features: o, bias: true }
}

const BN: fn(usize) -> Op = |num_features| Op::BatchNorm2d { num_features, eps: 1e-5 };

/// A graph on `x` of `[2, 4, 4]` whose last node is the output; inputs are separated by blanks.
fn graph<const N: usize>(nodes: [(&str, Op, &str); N]) -> Graph {
    Graph {
        arch: "test".into(),
        input: Input { name: "x".into(), shape: vec![2, 4, 4] },
        outputs: vec![nodes[N - 1].0.into()],
        nodes: nodes
            .into_iter()
            .map(|(name, op, inputs)| Node {
                name: name.into(),
                module: (!op.params().is_empty()).then(|| name.into()),
                op,
                inputs: inputs.split_whitespace().map(Into::into).collect(),
                params: std::collections::BTreeMap::new(),
            })
            .collect(),
    }
}

/// `name: dim @ values`, one per space.
fn spaces(graph: &Graph) -> Vec<String> {
    let spaces = graph.spaces().unwrap();
    let line = |s: &super::Space| format!("{}: {} @ {}", s.name, s.dim, s.values.join(" "));
    spaces.spaces.iter().map(line).collect()
}

#[test]
fn a_residual_stream_is_one_space_measured_at_its_end() {
    let net = graph([
        ("stem", conv(2, 3, 1), "x"),
        ("a", conv(3, 5, 1), "stem"),
        ("b", conv(5, 3, 1), "a"),
        ("add", Op::Add, "b stem"),
        ("relu", Op::Relu, "add"),
        ("pool", Op::AdaptiveAvgPool2d { output: [1, 1] }, "relu"),
        ("flat", Op::Flatten, "pool"),
        ("head", linear(3, 7), "flat"),
    ]);
    assert_eq!(spaces(&net), ["x: 2 @ x", "relu: 3 @ stem b add relu pool flat", "a: 5 @ a", "head: 7 @ head"]);
    let all = net.spaces().unwrap();
    assert_eq!(
        all.spaces.iter().map(|s| s.fixed).collect::<Vec<_>>(),
        [Some(Fixed::Input), None, None, Some(Fixed::Output)]
    );
    assert_eq!(all.of_value("b"), Some(1));
    let points: Vec<_> = net.merge_points(&all).into_iter().map(|p| (p.name, p.dim, p.layers)).collect();
    assert_eq!(points, [("a".to_owned(), 5, 2), ("relu".to_owned(), 3, 3)]);
    assert_eq!(net.n_layers(), 4);
}

#[test]
fn concat_stacks_and_flatten_repeats() {
    let net = graph([
        ("a", conv(2, 3, 1), "x"),
        ("b", conv(2, 4, 1), "x"),
        ("ab", Op::Concat, "a b"),
        ("deep", conv(7, 7, 7), "ab"),
        ("max", Op::MaxPool2d { window: Window::square(2, 2, 0) }, "deep"),
        ("flat", Op::Flatten, "max"),
        ("head", linear(28, 2), "flat"),
    ]);
    let all = net.spaces().unwrap();
    let axis: Vec<(usize, usize)> = all.axes["flat"].iter().map(|s| (s.space, s.repeat)).collect();
    assert_eq!(axis, [(1, 4), (2, 4)]);
    assert_eq!(all.of_value("ab"), None);
    // A value of several spaces names none of them.
    assert_eq!(spaces(&net)[1..3], ["a: 3 @ a ab deep max flat", "b: 4 @ b ab deep max flat"]);
}

#[test]
fn blocks_from_parts_and_of_two_sizes_are_every_models_own() {
    let net = graph([
        ("a", conv(2, 3, 1), "x"),
        ("b", conv(2, 5, 1), "x"),
        ("ab", Op::Concat, "a b"),
        ("parts", conv(8, 4, 2), "ab"),
        ("c", conv(4, 6, 1), "parts"),
        ("d", conv(6, 8, 1), "c"),
        ("four", conv(8, 8, 4), "d"),
        ("two", conv(8, 8, 2), "four"),
        ("e", conv(8, 5, 1), "two"),
        ("f", conv(5, 3, 1), "e"),
        ("mean", Op::Mean, "f"),
    ]);
    let all = net.spaces().unwrap();
    let own = |space: &Space| space.fixed == Some(Fixed::Blocks) && space.blocks.is_none();
    let kept: Vec<&str> = all.spaces.iter().filter(|s| own(s)).map(|s| s.name.as_str()).collect();
    assert_eq!(kept, ["a", "b", "parts", "d", "four", "two"]);
    let merged: Vec<String> = net.merge_points(&all).into_iter().map(|point| point.name).collect();
    assert_eq!(merged, ["c", "e"]);
}

#[test]
fn adding_concatenations_ties_them_part_by_part() {
    let net = graph([
        ("a", conv(2, 3, 1), "x"),
        ("b", conv(2, 4, 1), "x"),
        ("c", conv(2, 3, 1), "x"),
        ("d", conv(2, 4, 1), "x"),
        ("ab", Op::Concat, "a b"),
        ("cd", Op::Concat, "c d"),
        ("add", Op::Add, "ab cd"),
        ("flat", Op::Flatten, "add"),
        ("head", linear(112, 2), "flat"),
    ]);
    assert_eq!(spaces(&net)[1..3], ["c: 3 @ a c ab cd add flat", "d: 4 @ b d ab cd add flat"]);
}

#[test]
fn a_call_says_what_it_cannot_read() {
    let of = |layers: usize, inputs: &[&[usize]]| {
        let call = Call::Lstm { layers, bias: false, bidirectional: false };
        Op::Call { call, shape: vec![1] }.output_shape(inputs)
    };
    assert!(of(0, &[&[2, 3]]).is_err_and(|e| e.contains("0 layers")));
    assert!(of(1, &[&[2, 3], &[4], &[4]]).is_err_and(|e| e.contains("two axes")));
    assert!(of(usize::MAX, &[&[2, 3], &[4, 3], &[4, 1]]).is_err_and(|e| e.contains("tensors, has 3")));
    assert!(of(1, &[&[2, 3], &[4, 3], &[4, 1]]).is_ok());
}

#[test]
fn what_cannot_be_analysed_is_refused_by_name() {
    let refused = |net: &Graph| net.spaces().unwrap_err().to_string();
    let shuffled = graph([
        ("a", conv(2, 4, 1), "x"),
        ("b", conv(2, 4, 1), "x"),
        ("ab", Op::Concat, "a b"),
        ("s", Op::ChannelShuffle { groups: 2 }, "ab"),
        ("c", conv(2, 3, 1), "x"),
        ("sc", Op::Concat, "s c"),
        ("first", Op::Slice { ranges: vec![[0, 8]] }, "sc"),
        ("g", conv(8, 4, 2), "first"),
        ("h", conv(11, 4, 1), "sc"),
        ("add", Op::Add, "g h"),
        ("f", Op::Flatten, "add"),
    ]);
    let why = refused(&shuffled);
    assert!(why.contains("node `g` (Conv2d): `first` has features in blocks"), "{why}");
    let mixed = graph([
        ("a", conv(2, 3, 1), "x"),
        ("b", conv(2, 4, 1), "x"),
        ("ab", Op::Concat, "a b"),
        ("ba", Op::Concat, "b a"),
        ("add", Op::Add, "ab ba"),
        ("f", Op::Flatten, "add"),
    ]);
    assert!(mixed.spaces().is_ok_and(|all| all.spaces.iter().all(|space| space.fixed.is_some())));
    let halves = graph([
        ("a", conv(2, 8, 1), "x"),
        ("first", Op::Slice { ranges: vec![[0, 4]] }, "a"),
        ("last", Op::Slice { ranges: vec![[4, 8]] }, "a"),
        ("sum", Op::Add, "first last"),
        ("f", Op::Flatten, "sum"),
    ]);
    // Each model keeps its own; here they are the logits.
    assert!(halves.spaces().is_ok());
    assert_eq!(halves.first_tie("a").unwrap().map(|node| node.name.as_str()), Some("sum"));
    let through = graph([("f", Op::Flatten, "x")]);
    // The image in another shape: nothing is merged, and nothing is any model's own.
    assert!(through.spaces().is_ok_and(|all| all.heads.is_empty() && all.spaces[0].fixed == Some(Fixed::Input)));
}

#[test]
fn every_malformed_graph_is_an_error() {
    let good = || {
        graph([
            ("a", conv(2, 3, 1), "x"),
            ("n", BN(3), "a"),
            ("r", Op::Relu, "n"),
            ("f", Op::Flatten, "r"),
            ("h", linear(48, 2), "f"),
        ])
    };
    good().shapes().unwrap();
    let broken = |change: &dyn Fn(&mut Graph), expected: &str| {
        let mut net = good();
        change(&mut net);
        let message = net.shapes().unwrap_err().to_string();
        assert!(message.contains(expected), "expected {expected:?} in {message:?}");
    };
    broken(&|g| g.nodes[2].name = "n".into(), "already has this name");
    broken(&|g| g.nodes[0].name = "x".into(), "already has this name");
    broken(&|g| g.nodes.swap(0, 1), "reads `a`, which no earlier node makes");
    broken(&|g| g.nodes[0].module = None, "no module name");
    broken(&|g| g.nodes[2].module = Some("r".into()), "has no parameters");
    broken(&|g| g.nodes[1].module = Some("a".into()), "shares the weights `a.weight` with `a`");
    broken(&|g| g.nodes[1].op = BN(4), "expects 4 channels, is given 3");
    broken(&|g| g.nodes[4].op = linear(47, 2), "expects 47 features, is given [48]");
    broken(&|g| g.nodes[4].op = linear(48, 0), "empty value");
    broken(&|g| g.nodes[0].op = conv(2, 3, 0), "0 groups");
    broken(&|g| g.nodes[0].op = conv(usize::MAX, 3, 1), "too large");
    broken(&|g| g.nodes[1].op = Op::BatchNorm2d { num_features: 3, eps: f64::NAN }, "eps NaN");
    broken(&|g| g.nodes[2].inputs.push("a".into()), "needs one input, has 2");
    broken(&|g| g.nodes[2].op = Op::MaxPool2d { window: Window::square(9, 1, 0) }, "9×9 window does not fit 4×4");
    broken(&|g| g.nodes[2].op = Op::MaxPool2d { window: Window::square(2, 0, 0) }, "stride or dilation of 0");
    broken(
        &|g| g.nodes[2].op = Op::AvgPool2d { window: Window::square(2, 1, 2), count_include_pad: true },
        "more than half",
    );
    broken(&|g| g.nodes[2].op = Op::AdaptiveAvgPool2d { output: [1 << 20; 2] }, "too large");
    broken(&|g| g.input.shape.clear(), "is empty");
    broken(&|g| g.input.shape = vec![2, usize::MAX, 4], "too large");
    broken(&|g| g.outputs.clear(), "no outputs");
    broken(&|g| g.outputs[0] = "z".into(), "made by no node");
    broken(&|g| g.outputs[0] = "x".into(), "output `x` is the input");
    broken(&|g| g.nodes[2] = Node { op: Op::Add, inputs: vec!["n".into(), "x".into()], ..g.nodes[2].clone() }, "adds");
}

#[test]
fn every_tensor_that_does_not_fit_is_listed_at_once() {
    let net = graph([("a", conv(2, 3, 1), "x"), ("n", BN(3), "a"), ("f", Op::Flatten, "n"), ("h", linear(48, 2), "f")]);
    let mut weights: StateDict = net.params().into_iter().map(|(name, p)| (name, ArrayD::zeros(p.shape))).collect();
    net.check_weights(&weights).unwrap();
    weights.remove("n.running_var");
    weights.insert("h.weight".into(), ArrayD::zeros(vec![2, 47]));
    weights.insert("extra".into(), ArrayD::zeros(vec![1]));
    assert_eq!(
        net.check_weights(&weights).unwrap_err().to_string(),
        "3 tensors do not fit the network:\n  missing: n.running_var [3]\n  wrong shape: h.weight is [2, 47], the network \
         needs [2, 48]\n  unexpected: extra [1]"
    );
    assert!(net.check_tensor_shapes(&BTreeMap::new()).is_err());
}

/// Sizes by the formulas in PyTorch's documentation of `MaxPool2d` and `Conv2d`.
#[test]
fn windows_slide_as_in_pytorch() {
    let ceil = |kernel, stride, padding| Window { ceil_mode: true, ..Window::square(kernel, stride, padding) };
    for (window, size, expected) in [
        (Window::square(7, 2, 3), 224, Some(112)),
        (Window::square(3, 2, 1), 112, Some(56)),
        (Window::square(2, 2, 0), 7, Some(3)),
        (ceil(2, 2, 0), 7, Some(4)),
        (ceil(3, 2, 0), 4, Some(2)),
        // The partial window would start beyond the image and is dropped.
        (ceil(1, 2, 0), 2, Some(1)),
        (Window { dilation: [2; 2], ..Window::square(3, 1, 0) }, 5, Some(1)),
        (Window { dilation: [2; 2], ..Window::square(3, 1, 0) }, 4, None),
    ] {
        assert_eq!(window.output([size; 2]).map(|out| out[0]), expected, "{window} on {size}");
    }
}

#[test]
fn ops_describe_themselves() {
    let strided = Op::Conv2d {
        in_channels: 4,
        out_channels: 4,
        window: Window { stride: [2, 1], ..Window::square(3, 1, 1) },
        groups: 4,
        bias: true,
    };
    assert_eq!(strided.to_string(), "Conv2d 4→4, 3×3, stride 2×1, padding 1, 4 groups, bias");
    assert_eq!(linear(3, 2).to_string(), "Linear 3→2");
    assert_eq!(Op::AdaptiveAvgPool2d { output: [1, 1] }.to_string(), "AdaptiveAvgPool2d to 1×1");
    let clamp = |low, high| Op::Activation { function: Activation::Hardtanh(low, high) };
    assert_eq!(clamp(-1.0, 0.5).to_string(), "Hardtanh -1 0.5");
    let error = graph([("a", clamp(1.0, 0.5), "x"), ("f", Op::Flatten, "a")]).shapes().unwrap_err().to_string();
    assert!(error.contains("node `a` (Hardtanh): its lower bound 1 is above the upper one 0.5"), "{error}");
}

/// Nodes `map` [3, 4, 4] and `turned` [4, 4, 3] of a trunk of 5 features.
fn dense() -> [(&'static str, Op, &'static str); 5] {
    let call = |call, shape: &[usize]| Op::Call { call, shape: shape.to_vec() };
    [
        ("a", conv(2, 5, 1), "x"),
        ("map", conv(5, 3, 1), "a"),
        ("turned", call(Call::Permute { dims: vec![0, 2, 3, 1] }, &[1, 4, 4, 3]), "map"),
        ("normed", call(Call::Affine { scale: 2.0, shift: 0.0 }, &[1, 5, 4, 4]), "a"),
        ("b", conv(5, 4, 1), "a"),
    ]
}

#[test]
fn outputs_are_of_any_shape() {
    let of = |outputs: &[&str]| Graph { outputs: outputs.iter().map(|&o| o.to_owned()).collect(), ..graph(dense()) };
    let net = of(&["turned", "b", "normed", "b"]);
    assert_eq!(net.output_shapes().unwrap(), [vec![4, 4, 3], vec![4, 4, 4], vec![5, 4, 4], vec![4, 4, 4]]);
    let fixed = |net: &Graph, name: &str| {
        let spaces = net.spaces().unwrap();
        spaces.spaces[spaces.of_value(name).unwrap()].fixed
    };
    // What only an output is turned from is as the output itself; what the trunk reads too is merged.
    assert_eq!(["map", "b", "a"].map(|name| fixed(&net, name)), [Some(Fixed::Output), Some(Fixed::Output), None]);
    assert_eq!(net.spaces().unwrap().heads, ["b", "map", "turned"].map(str::to_owned).into());
    // An inner value that is an output belongs to the trunk.
    let inner = of(&["a", "b"]);
    assert_eq!(fixed(&inner, "a"), Some(Fixed::Output));
    let heads = inner.spaces().unwrap().heads;
    assert!(heads.contains("b") && !heads.contains("a"), "{heads:?}");
    let refused = |net: &Graph| net.shapes().unwrap_err().to_string();
    assert!(refused(&of(&["x"])).contains("output `x` is the input"));
    let mut mixed = of(&["turned"]);
    mixed.nodes[2].op = Op::Call { call: Call::Permute { dims: vec![2, 0, 3, 1] }, shape: vec![4, 1, 4, 3] };
    assert!(refused(&mixed).contains("is [4, 1, 4, 3] for one image: an output has the batch in front"));
}

#[test]
fn heads_are_what_one_output_alone_needs() {
    let graph = crate::graph::ArchSpec::new(crate::graph::Arch::ResNet20, 0.25, 1, [8, 8], 3).build().unwrap();
    let with_parameters = |graph: &Graph| -> Vec<String> {
        let nodes = graph.own_nodes().into_iter().map(|i| graph.nodes[i].clone());
        nodes.filter(|node| !node.op.params().is_empty()).map(|node| node.name).collect()
    };
    assert_eq!(with_parameters(&graph), ["linear"]);
    // A second output beside the first, from the middle of the network.
    let mut two = graph.clone();
    let middle = two.nodes.iter().find(|node| node.name == "layer2.2.relu_1").unwrap().name.clone();
    let op = Op::Conv2d { in_channels: 8, out_channels: 2, window: Window::square(1, 1, 0), groups: 1, bias: true };
    two.nodes.push(Node { module: Some("map".into()), ..Node::new("map", op, vec![middle]) });
    two.outputs.push("map".into());
    let found = with_parameters(&two);
    assert!(found.contains(&"map".to_owned()) && found.contains(&"layer3.0.conv1".to_owned()), "{found:?}");
    assert!(!found.iter().any(|name| name.starts_with("layer2")), "{found:?}");
}
