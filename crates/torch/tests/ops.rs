//! Every op against numbers computed by hand; the PyTorch call that gives the same stands above them.
#![allow(clippy::unwrap_used)]

mod networks;

use ndarray::{Array4, ArrayD};
use networks::{array, graph};
use zipit::graph::{Activation, Op, Window};
use zipit::{Model, Preprocess, StateDict, Task};
use zipit_torch::{Device, Network, convert::to_array};

/// The value of the last node of a graph with one image `[C, H, W]` going in.
fn run(
    shape: [usize; 3],
    image: &[f32],
    nodes: &[(&str, Op, &[&str])],
    weights: &[(&str, ArrayD<f32>)],
) -> ArrayD<f32> {
    let last = nodes.last().unwrap().0;
    let mut nodes = nodes.to_vec();
    nodes.push(("output", Op::Flatten, std::slice::from_ref(&last)));
    let graph = graph(shape, &nodes, &["output"]);
    let weights: StateDict = weights.iter().map(|(name, w)| ((*name).to_owned(), w.clone())).collect();
    let n_logits = graph.shapes().unwrap()["output"][0];
    let model = Model {
        graph,
        weights,
        tasks: vec![Task { name: "t".into(), classes: (0..n_logits).map(|c| c.to_string()).collect() }],
        joint: None,
        preprocess: Preprocess::new([shape[1], shape[2]], vec![0.0; shape[0]], vec![1.0; shape[0]]),
    };
    model.validate().unwrap();
    let network = Network::new(&model, Device::Cpu).unwrap();
    let images = Array4::from_shape_vec((1, shape[0], shape[1], shape[2]), image.to_vec()).unwrap();
    let mut found = None;
    let outputs = network
        .observe(network.input(&images).unwrap(), |name, value| {
            if name == last {
                found = Some(to_array(value)?);
            }
            Ok(())
        })
        .unwrap();
    let found = found.unwrap();
    assert_eq!(
        to_array(&outputs[0]).unwrap().as_slice().unwrap(),
        found.as_slice().unwrap(),
        "flattened in C, H, W order"
    );
    found
}

fn assert_close(found: &ArrayD<f32>, shape: &[usize], expected: &[f32]) {
    assert_eq!(found.shape(), shape);
    for (f, e) in found.iter().zip(expected) {
        assert!((f - e).abs() <= 1e-5 * e.abs().max(1.0), "{found:?}\nexpected {expected:?}");
    }
}

fn counted(n: u8) -> Vec<f32> {
    (1..=n).map(f32::from).collect()
}

/// ```python
/// x = torch.arange(1., 10).view(1, 1, 3, 3); w = torch.tensor([[[[1., 2], [3, 4]]]]); b = torch.tensor([0.5])
/// F.conv2d(x, w, b)                                   # [[37.5, 47.5], [67.5, 77.5]]
/// F.conv2d(x, w, b, stride=2, padding=1)              # [[4.5, 18.5], [43.5, 77.5 … see below]]
/// F.conv2d(x, w, b, dilation=2)                       # 1·1 + 2·3 + 3·7 + 4·9 + 0.5 = 64.5
/// ```
/// Stride 2, padding 1 starts at (−1, −1), (−1, 1), (1, −1), (1, 1): 4·1 = 4; 3·2 + 4·3 = 18; 2·4 + 4·7 = 36;
/// 1·5 + 2·6 + 3·8 + 4·9 = 77.
#[test]
fn conv2d() {
    let conv = |window| Op::Conv2d { in_channels: 1, out_channels: 1, window, groups: 1, bias: true };
    let weights = [("c.weight", array(&[1, 1, 2, 2], &[1.0, 2.0, 3.0, 4.0])), ("c.bias", array(&[1], &[0.5]))];
    let go = |window| run([1, 3, 3], &counted(9), &[("c", conv(window), &["input"])], &weights);
    assert_close(&go(Window::square(2, 1, 0)), &[1, 1, 2, 2], &[37.5, 47.5, 67.5, 77.5]);
    assert_close(&go(Window::square(2, 2, 1)), &[1, 1, 2, 2], &[4.5, 18.5, 36.5, 77.5]);
    let dilated = Window { dilation: [2, 2], ..Window::square(2, 1, 0) };
    assert_close(&go(dilated), &[1, 1, 1, 1], &[64.5]);
}

/// ```python
/// F.conv2d(torch.arange(1., 5).view(1, 2, 1, 2), torch.tensor([10., 100]).view(2, 1, 1, 1), groups=2)
/// ```
#[test]
fn depthwise_conv2d_keeps_channels_apart() {
    let op = Op::Conv2d { in_channels: 2, out_channels: 2, window: Window::square(1, 1, 0), groups: 2, bias: false };
    let found =
        run([2, 1, 2], &counted(4), &[("c", op, &["input"])], &[("c.weight", array(&[2, 1, 1, 1], &[10.0, 100.0]))]);
    assert_close(&found, &[1, 2, 1, 2], &[10.0, 20.0, 300.0, 400.0]);
}

/// ```python
/// F.conv2d(torch.tensor([1., 2]).view(1, 2, 1, 1), torch.tensor([[1., 2], [3, 4], [5, 6]]).view(3, 2, 1, 1))
/// ```
#[test]
fn conv2d_mixes_channels() {
    let op = Op::Conv2d { in_channels: 2, out_channels: 3, window: Window::square(1, 1, 0), groups: 1, bias: false };
    let found =
        run([2, 1, 1], &[1.0, 2.0], &[("c", op, &["input"])], &[("c.weight", array(&[3, 2, 1, 1], &counted(6)))]);
    assert_close(&found, &[1, 3, 1, 1], &[5.0, 11.0, 17.0]);
}

/// ```python
/// F.linear(torch.tensor([[1., 2]]), torch.tensor([[1., 2], [3, 4], [5, 6]]), torch.tensor([1., 0, -1]))
/// ```
#[test]
fn linear_and_flatten() {
    let nodes: [(&str, Op, &[&str]); 2] =
        [("f", Op::Flatten, &["input"]), ("l", Op::Linear { in_features: 2, out_features: 3, bias: true }, &["f"])];
    let weights = [("l.weight", array(&[3, 2], &counted(6))), ("l.bias", array(&[3], &[1.0, 0.0, -1.0]))];
    assert_close(&run([2, 1, 1], &[1.0, 2.0], &nodes, &weights), &[1, 3], &[6.0, 11.0, 16.0]);
}

/// ```python
/// F.batch_norm(torch.arange(1., 5).view(1, 2, 1, 2), torch.tensor([1., 2]), torch.tensor([3., 8]),
///              torch.tensor([2., -1]), torch.tensor([0.5, 1]), eps=1.0)     # (x − 1)/2·2 + .5; (x − 2)/3·(−1) + 1
/// ```
#[test]
fn batch_norm2d() {
    let weights = [
        ("b.weight", array(&[2], &[2.0, -1.0])),
        ("b.bias", array(&[2], &[0.5, 1.0])),
        ("b.running_mean", array(&[2], &[1.0, 2.0])),
        ("b.running_var", array(&[2], &[3.0, 8.0])),
    ];
    let op = Op::BatchNorm2d { num_features: 2, eps: 1.0 };
    let found = run([2, 1, 2], &counted(4), &[("b", op, &["input"])], &weights);
    assert_close(&found, &[1, 2, 1, 2], &[0.5, 1.5, 2.0 / 3.0, 1.0 / 3.0]);
}

/// ```python
/// x = torch.arange(1., 10).view(1, 1, 3, 3)
/// F.max_pool2d(x, 2)                                       # 5
/// F.max_pool2d(x, 2, ceil_mode=True)                       # [[5, 6], [8, 9]]
/// F.max_pool2d(-x, 3, stride=2, padding=1)                 # [[−1, −2], [−4, −5]]: the border never wins
/// F.avg_pool2d(x, 2, stride=1)                             # [[3, 4], [6, 7]]
/// F.avg_pool2d(x, 2, stride=2, padding=1)                  # [[1/4, 5/4], [11/4, 7]]: the border counts as zeros
/// F.avg_pool2d(x, 2, ceil_mode=True)                       # [[3, 4.5], [7.5, 9]]: beyond the border nothing counts
/// F.adaptive_avg_pool2d(x, 1)                              # 5
/// F.adaptive_avg_pool2d(x, 2)                              # [[3, 4], [6, 7]]: windows overlap
/// ```
#[test]
fn pooling() {
    let x = counted(9);
    let minus: Vec<f32> = x.iter().map(|v| -v).collect();
    let ceil = Window { ceil_mode: true, ..Window::square(2, 2, 0) };
    let max = |window| Op::MaxPool2d { window };
    let avg = |window| Op::AvgPool2d { window, count_include_pad: true };
    let go = |image: &[f32], op| run([1, 3, 3], image, &[("p", op, &["input"])], &[]);
    assert_close(&go(&x, max(Window::square(2, 2, 0))), &[1, 1, 1, 1], &[5.0]);
    assert_close(&go(&x, max(ceil)), &[1, 1, 2, 2], &[5.0, 6.0, 8.0, 9.0]);
    assert_close(&go(&minus, max(Window::square(3, 2, 1))), &[1, 1, 2, 2], &[-1.0, -2.0, -4.0, -5.0]);
    assert_close(&go(&x, avg(Window::square(2, 1, 0))), &[1, 1, 2, 2], &[3.0, 4.0, 6.0, 7.0]);
    assert_close(&go(&x, avg(Window::square(2, 2, 1))), &[1, 1, 2, 2], &[0.25, 1.25, 2.75, 7.0]);
    assert_close(&go(&x, avg(ceil)), &[1, 1, 2, 2], &[3.0, 4.5, 7.5, 9.0]);
    assert_close(&go(&x, Op::AdaptiveAvgPool2d { output: [1, 1] }), &[1, 1, 1, 1], &[5.0]);
    assert_close(&go(&x, Op::AdaptiveAvgPool2d { output: [2, 2] }), &[1, 1, 2, 2], &[3.0, 4.0, 6.0, 7.0]);
}

#[test]
fn relu_add_and_concat() {
    let x = [-1.0, 2.0];
    let relu: (&str, Op, &[&str]) = ("r", Op::Relu, &["input"]);
    assert_close(&run([2, 1, 1], &x, std::slice::from_ref(&relu), &[]), &[1, 2, 1, 1], &[0.0, 2.0]);
    let sum = run([2, 1, 1], &x, &[relu.clone(), ("a", Op::Add, &["r", "input", "input"])], &[]);
    assert_close(&sum, &[1, 2, 1, 1], &[-2.0, 6.0]);
    let both = run([2, 1, 1], &x, &[relu, ("k", Op::Concat, &["r", "input"])], &[]);
    assert_close(&both, &[1, 4, 1, 1], &[0.0, 2.0, -1.0, 2.0]);
}

/// ```python
/// x = torch.tensor([-2., -0.25, 0.25, 3.]); F.selu(x); F.celu(x, 0.5); F.hardtanh(x, -1, 0.5)
/// F.threshold(x, 0.1, -0.3); F.softsign(x); F.logsigmoid(x); F.hardshrink(x, 0.5); F.softshrink(x, 0.5)
/// F.tanhshrink(x); x.abs()
/// ```
#[test]
fn activations() {
    let expected = [
        (Activation::Selu, [-1.520_167, -0.388_890_2, 0.262_675_3, 3.152_103]),
        (Activation::Celu(0.5), [-0.490_842_2, -0.196_734_7, 0.25, 3.0]),
        (Activation::Hardtanh(-1.0, 0.5), [-1.0, -0.25, 0.25, 0.5]),
        (Activation::Threshold(0.1, -0.3), [-0.3, -0.3, 0.25, 3.0]),
        (Activation::Softsign, [-0.666_666_7, -0.2, 0.2, 0.75]),
        (Activation::LogSigmoid, [-2.126_928, -0.825_939_4, -0.575_939_4, -0.048_587_35]),
        (Activation::Hardshrink(0.5), [-2.0, 0.0, 0.0, 3.0]),
        (Activation::Softshrink(0.5), [-1.5, 0.0, 0.0, 2.5]),
        (Activation::Tanhshrink, [-1.035_972, -0.005_081_341, 0.005_081_341, 2.004_945]),
        (Activation::Abs, [2.0, 0.25, 0.25, 3.0]),
    ];
    for (function, expected) in expected {
        let node: (&str, Op, &[&str]) = ("a", Op::Activation { function }, &["input"]);
        let found = run([4, 1, 1], &[-2.0, -0.25, 0.25, 3.0], &[node], &[]);
        assert_close(&found, &[1, 4, 1, 1], &expected);
    }
}

/// Values are overwritten only where nobody else reads them: `c` is read by ReLU and by Add, `s` is `r` itself.
#[test]
fn overwriting_is_invisible() {
    let conv = Op::Conv2d { in_channels: 1, out_channels: 1, window: Window::square(1, 1, 0), groups: 1, bias: false };
    let nodes: [(&str, Op, &[&str]); 6] = [
        ("c", conv, &["input"]),
        ("r", Op::Relu, &["c"]),
        ("a", Op::Add, &["c", "r"]),
        ("s", Op::Add, &["a"]),
        ("q", Op::Relu, &["s"]),
        ("k", Op::Concat, &["a", "q", "c"]),
    ];
    let found = run([1, 1, 2], &[-1.0, 2.0], &nodes, &[("c.weight", array(&[1, 1, 1, 1], &[3.0]))]);
    assert_close(&found, &[1, 3, 1, 2], &[-3.0, 12.0, 0.0, 12.0, -3.0, 6.0]);
}
