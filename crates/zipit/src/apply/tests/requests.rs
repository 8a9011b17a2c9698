//! What surgery calls things, and what it refuses.

use super::graphs::{oddities, zoo};
use super::networks::{identity, image, model, with_heads};
use crate::apply::{Heads, apply, check_mergeable, reference::logits};
use crate::graph::{Arch, ArchSpec, Graph, Op};
use crate::merge_set::Selection;
use crate::{Model, StateDict};
use ndarray::{Array2, Axis};

fn resnet20() -> Graph {
    zoo().swap_remove(0)
}

fn selected(graph: &Graph, selection: &Selection) -> Vec<String> {
    selection.resolve(graph, 2).unwrap().points.into_iter().map(|p| p.name).collect()
}

fn refusal(models: &[&Model], plan: &crate::plan::Plan, heads: Heads) -> String {
    apply(models, plan, heads).unwrap_err().to_string()
}

#[test]
fn stopping_early_makes_a_trunk_and_named_heads() {
    let graph = resnet20();
    let stop = Selection { stop_at: Some("7/20".parse().unwrap()), ..Selection::default() };
    let trunk = selected(&graph, &stop);
    let [a, b] = [1, 2].map(|seed| model(&graph, seed));
    let merged = apply(&[&a, &b], &identity(&graph, 2, |p| trunk.contains(&p.to_owned())), Heads::Separate).unwrap();
    let input_of = |name: &str| merged.graph.node(name).unwrap().inputs.clone();
    assert_eq!(input_of("layer1.2.relu_1"), ["layer1.2.add"]);
    assert_eq!(input_of("models.1.layer2.0.conv1"), ["layer1.2.relu_1"]);
    assert_eq!(input_of("models.1.layer2.0.shortcut.0"), ["layer1.2.relu_1"]);
    assert_eq!(input_of("models.1.layer2.0.bn1"), ["models.1.layer2.0.conv1"]);
    assert!(merged.weights.contains_key("models.0.layer2.0.shortcut.1.running_var"));
    assert!(!merged.weights.contains_key("layer2.0.conv1.weight"));
    assert_eq!(merged.graph.outputs, ["models.0.linear", "models.1.linear"]);
    let names: Vec<&str> = merged.tasks.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["task linear", "task linear-2"]);
    assert_eq!((merged.graph.arch.as_str(), &merged.preprocess), ("merge of 2 resnet20", &a.preprocess));
    let mut again = merged.graph.clone();
    again.arch.clear();
    // What is merged once stays one merge point; what is separate became two.
    assert_eq!(again.merge_points(&again.spaces().unwrap()).len(), 4 + 2 * 8);
}

#[test]
fn starting_late_sums_the_stems_under_the_layers_name() {
    let graph = resnet20();
    let start = Selection { start_at: Some("7/20".parse().unwrap()), ..Selection::default() };
    let trunk = selected(&graph, &start);
    let [a, b] = [1, 2].map(|seed| model(&graph, seed));
    let merged = apply(&[&a, &b], &identity(&graph, 2, |p| trunk.contains(&p.to_owned())), Heads::Separate).unwrap();
    let sum = merged.graph.node("layer2.0.conv1").unwrap();
    assert_eq!((&sum.op, &sum.module), (&Op::Add, &None));
    assert_eq!(sum.inputs, ["models.0.layer2.0.conv1", "models.1.layer2.0.conv1"]);
    assert_eq!(merged.graph.node("layer2.0.bn1").unwrap().inputs, ["layer2.0.conv1"]);
    let half = &a.weights["layer2.0.conv1.weight"] / 2.0;
    assert_eq!(merged.weights["models.0.layer2.0.conv1.weight"], half);
}

#[test]
fn a_prefix_that_is_taken_is_not_used() {
    let mut graph = oddities();
    // A shared value that would clash with model 0's own copy of `head`.
    graph.nodes[2].name = "models.0.head".into();
    graph.nodes[4].inputs[0] = "models.0.head".into();
    let [a, b] = [1, 2].map(|seed| model(&graph, seed));
    let merged = apply(&[&a, &b], &identity(&graph, 2, |p| p == "models.0.head"), Heads::Separate).unwrap();
    assert_eq!(merged.graph.outputs[0], "models_2.0.head");
}

#[test]
fn heads_of_one_label_space_become_one_output_whatever_their_order() {
    let graph = resnet20();
    let a = model(&graph, 1);
    let mut b = a.clone();
    let order = [2, 0, 1];
    b.tasks[0].classes = order.map(|c| a.tasks[0].classes[c].clone()).to_vec();
    for name in ["linear.weight", "linear.bias"] {
        b.weights.insert(name.into(), a.weights[name].select(Axis(0), &order));
    }
    for chosen in [true, false] {
        let merged = apply(&[&a, &b], &identity(&graph, 2, |_| chosen), Heads::Merge).unwrap();
        assert_eq!((&merged.graph.outputs[..], &merged.tasks), (&["linear".to_owned()][..], &a.tasks));
        let x = image(&graph, 5);
        for (ours, own) in logits(&merged, &x)[0].iter().zip(&logits(&a, &x)[0]) {
            assert!((ours - own).abs() < 1e-6);
        }
    }
}

#[test]
fn heads_of_different_label_spaces_are_not_merged() {
    let graph = resnet20();
    let [a, mut b] = [1, 2].map(|seed| model(&graph, seed));
    b.tasks[0].classes = ["x", "y", "z"].map(Into::into).to_vec();
    let message = refusal(&[&a, &b], &identity(&graph, 2, |_| true), Heads::Merge);
    assert!(message.contains("model 1 (task linear): class 0, class 1, class 2; model 2 (task linear): x, y, z"));
    apply(&[&a, &b], &identity(&graph, 2, |_| true), Heads::Separate).unwrap();
}

#[test]
fn every_difference_between_models_is_listed() {
    let build = |arch, width, size| ArchSpec::new(arch, width, 2, [size; 2], 3).build().unwrap();
    let first = model(&build(Arch::ResNet20, 0.25, 8), 1);
    let mut wider = model(&build(Arch::ResNet20, 0.5, 16), 1);
    wider.preprocess.mean = vec![0.1, 0.2];
    let deeper = model(&build(Arch::ResNet32, 0.25, 8), 1);
    let message = check_mergeable(&[&first, &wider, &deeper]).unwrap_err().to_string();
    for part in [
        "model 2: input is `x` [2, 16, 16], model 1's is `x` [2, 8, 8]",
        "model 2: `conv1` is Conv2d 2→8, 3×3, padding 1 of x with weights `conv1`, model 1's is Conv2d 2→4",
        "more differences between the nodes",
        "model 2: preprocessing's size is 16×16, model 1's is 8×8",
        "model 2: preprocessing's mean is [0.1, 0.2], model 1's is [0.5, 0.5]",
        "model 3: is called resnet32, model 1 resnet20",
        "model 3: has `layer1.3.conv1` (Conv2d 4→4, 3×3, padding 1), which model 1 has not",
    ] {
        assert!(message.contains(part), "{part}\n{message}");
    }
    assert!(message.lines().count() < 30);
    assert!(check_mergeable(&[&first]).unwrap_err().to_string().contains("at least two"));
    let mut renamed = first.clone();
    renamed.graph.arch = "mine".into();
    check_mergeable(&[&first, &renamed]).unwrap();
}

#[test]
fn only_the_trunk_must_agree() {
    let graph = resnet20();
    let first = model(&graph, 1);
    let refusal = |change: &dyn Fn(&mut Graph)| {
        let mut other = graph.clone();
        change(&mut other);
        check_mergeable(&[&first, &model(&other, 2)]).unwrap_err().to_string()
    };
    check_mergeable(&[&first, &model(&with_heads(&graph, &[7, 1]), 2)]).unwrap();
    // A layer before the logits is trunk, and what is said names the head.
    let deeper = refusal(&|graph| {
        let mut linear = graph.nodes.pop().unwrap();
        linear.name = "linear.0".into();
        linear.module = Some("linear.0".into());
        let mut last = linear.clone();
        (last.name, last.module, last.inputs) = ("linear.1".into(), Some("linear.1".into()), vec!["linear.0".into()]);
        last.op = Op::Linear { in_features: 3, out_features: 5, bias: true };
        graph.nodes.extend([linear, last]);
        graph.outputs = vec!["linear.1".into()];
    });
    for part in [
        "model 2: has `linear.0` (Linear 19→3), which model 1 has not",
        "the head at linear.1 and model 1's at linear may differ in",
    ] {
        assert!(deeper.contains(part), "{part}\n{deeper}");
    }
    // The first real difference comes first, whichever model has more.
    let longer = refusal(&|graph| {
        let at = graph.nodes.iter().position(|node| node.name == "layer2.0.relu").unwrap();
        let mut relu = graph.nodes[at].clone();
        relu.inputs = vec![std::mem::replace(&mut relu.name, "layer2.0.again".into())];
        graph.nodes[at + 1].inputs = vec!["layer2.0.again".into()];
        graph.nodes.insert(at + 1, relu);
    });
    let [added, changed] = ["has `layer2.0.again` (ReLU), which", "`layer2.0.conv2` is"].map(|part| longer.find(part));
    assert!(added.is_some() && added < changed, "{longer}");
    assert!(!longer.contains("may differ in"), "{longer}");
    // What makes logits in one model only.
    let cut = refusal(&|graph| {
        graph.nodes.pop();
        graph.outputs = vec!["flatten".into()];
    });
    assert!(cut.contains("makes logits, model 1's"), "{cut}");
}

#[test]
fn heads_of_different_shapes_are_not_made_one() {
    let graph = resnet20();
    let first = model(&graph, 1);
    let plan = identity(&graph, 2, |_| true);
    for (heads, part) in [
        (vec![3], "has its outputs at own0.linear, model 1 at linear"),
        (vec![3, 3], "has its outputs at own0.linear, own1.linear, model 1 at linear"),
    ] {
        let message = refusal(&[&first, &model(&with_heads(&graph, &heads), 2)], &plan, Heads::Merge);
        assert!(message.contains(part), "{message}");
    }
    let mut other = graph.clone();
    if let Op::Linear { bias, .. } = &mut other.nodes.last_mut().unwrap().op {
        *bias = false;
    }
    let message = refusal(&[&first, &model(&other, 2)], &plan, Heads::Merge);
    assert!(message.contains("keep them separate: model 2 `linear` is Linear"), "{message}");
    if let Op::Linear { out_features, .. } = &mut other.nodes.last_mut().unwrap().op {
        *out_features = 2;
    }
    let message = refusal(&[&first, &model(&other, 2)], &plan, Heads::Merge);
    assert!(message.contains("do not share one label space"), "{message}");
}

#[test]
fn a_plan_for_other_models_is_refused() {
    let graph = resnet20();
    let [a, b] = [1, 2].map(|seed| model(&graph, seed));
    let good = identity(&graph, 2, |_| true);
    let message = refusal(&[&a, &b, &a], &good, Heads::Separate);
    assert!(message.contains("the plan is for 2 models but 3 are given"), "{message}");

    let wider = ArchSpec::new(Arch::ResNet20, 1.0, 2, [8, 8], 3).build().unwrap();
    let message = refusal(&[&a, &b], &identity(&wider, 2, |_| true), Heads::Separate);
    assert!(message.contains("`layer1.0.relu` assigns 32 features, but 2 models with 5 each have 10"), "{message}");

    let mut renamed = good.clone();
    renamed.points[0].name = "nowhere".into();
    assert!(refusal(&[&a, &b], &renamed, Heads::Separate).contains("`nowhere` is none of resnet20's"));
    let mut twice = good.clone();
    twice.points.push(good.points[0].clone());
    assert!(apply(&[&a, &b], &twice, Heads::Separate).is_err());
    let mut dense = good.clone();
    dense.points[0].unmerge = Some(Array2::zeros((2, 2)));
    assert!(apply(&[&a, &b], &dense, Heads::Separate).is_err());
}

#[test]
fn weights_that_do_not_fit_are_refused_by_model() {
    let graph = resnet20();
    let [a, mut b] = [1, 2].map(|seed| model(&graph, seed));
    let plan = identity(&graph, 2, |_| true);
    b.weights.get_mut("conv1.weight").unwrap()[[0, 0, 0, 0]] = f32::NAN;
    assert!(refusal(&[&a, &b], &plan, Heads::Separate).contains("model 2: not finite (NaN or infinity): conv1.weight"));
    b.weights = StateDict::new();
    assert!(refusal(&[&a, &b], &plan, Heads::Separate).contains("missing: conv1.weight"));
}

#[test]
fn tensors_may_be_stored_in_any_order() {
    let graph = resnet20();
    let a = model(&graph, 1);
    let mut b = a.clone();
    for tensor in b.weights.values_mut() {
        // The same numbers, in column-major order.
        *tensor = tensor.t().as_standard_layout().into_owned().reversed_axes();
    }
    assert_eq!(a, b);
    let plan = identity(&graph, 2, |_| true);
    let one = apply(&[&a, &a], &plan, Heads::Separate).unwrap();
    assert_eq!(one, apply(&[&a, &b], &plan, Heads::Separate).unwrap());
}
