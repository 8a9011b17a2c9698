"""Files: what is written is what is read; the commands; checkpoints as people save them; ONNX."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from conftest import build, model_of, names, randomise
from torch import nn
from torchvision import models

import foreign_nets
import zipit_torch
from torch_graph import model_file, network, request
from torch_graph import preprocess as preprocessing
from torch_graph.errors import ZipitError
from torch_graph.graph import tensor_names
from torch_graph.model_file import Model

SPEC = {"size": [8, 8], "mean": [0.5] * 3, "std": [0.25] * 3}


class Small(nn.Module):
    def __init__(self, num_classes: int = 2) -> None:
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.bn(self.conv(x)).relu().mean((2, 3)))


class Two(Small):
    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.conv(x).mean((2, 3))
        return {"left": self.fc(x), "right": self.other(x)}


def metadata(path: Path) -> dict[str, str]:
    with safetensors.safe_open(path, "pt") as file:
        return file.metadata()


def test_export_and_load(tmp_path: Path) -> None:
    net, path = randomise(Small()), tmp_path / "a.safetensors"
    assert zipit_torch.export(net, out=path, classes=["a", "b"], preprocess=SPEC, tasks="pets") <= 1e-4
    found = metadata(path)
    assert set(found) == {"format", "zipit.graph", "zipit.tasks", "zipit.preprocess", "zipit.environment"}
    assert json.loads(found["zipit.tasks"]) == [{"name": "pets", "classes": ["a", "b"]}]
    assert json.loads(found["zipit.preprocess"]) == SPEC
    assert json.loads(found["zipit.environment"])["torch"] == torch.__version__.partition("+")[0]

    loaded = zipit_torch.load(path)
    assert set(loaded.state_dict()) == set(net.state_dict())
    assert (
        isinstance(loaded.conv, nn.Conv2d)
        and isinstance(loaded.bn, nn.BatchNorm2d)
        and isinstance(loaded.fc, nn.Linear)
    )
    assert loaded.tasks[0]["name"] == "pets" and loaded.preprocess == SPEC
    images = torch.rand(3, 3, 8, 8)
    torch.testing.assert_close(loaded(images)["pets"], net(images))
    traced = torch.fx.symbolic_trace(loaded)
    assert [n.target for n in traced.graph.nodes if n.op == "call_module"] == ["conv", "bn", "fc"]
    torch.testing.assert_close(traced(images)["pets"], net(images))


def test_the_same_network_is_the_same_bytes(tmp_path: Path) -> None:
    model = model_of(Small(), 8)
    model.environment["note"] = "ö \" \n \x7f"
    model_file.write(model, tmp_path / "a.safetensors")
    written = (tmp_path / "a.safetensors").read_bytes()
    length = int.from_bytes(written[:8], "little")
    entries = list(json.loads(written[8 : 8 + length])["__metadata__"])
    assert entries == sorted(entries) and len(entries) == 5
    assert model_file.read(tmp_path / "a.safetensors").environment == model.environment


def test_what_is_loaded_can_be_trained(tmp_path: Path) -> None:
    zipit_torch.export(randomise(Small()), out=tmp_path / "a.safetensors", classes=["a", "b"], preprocess=SPEC)
    net = zipit_torch.load(tmp_path / "a.safetensors").train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    net(torch.rand(4, 3, 8, 8))["task"].logsumexp(1).sum().backward()
    optimizer.step()
    assert all(not torch.equal(before[name], tensor) for name, tensor in net.named_parameters() if name != "conv.bias")
    assert not torch.equal(before["bn.running_mean"], net.bn.running_mean)


def test_several_outputs(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    zipit_torch.export(Two(), out=path, classes=[["a", "b"], ["c", "d", "e"]], preprocess=SPEC)
    logits = zipit_torch.load(path)(torch.rand(2, 3, 8, 8))
    assert {name: tuple(t.shape) for name, t in logits.items()} == {"left": (2, 2), "right": (2, 3)}


@pytest.mark.parametrize(
    ("classes", "tasks", "reason"),
    [
        ([["a", "b"]], None, r"outputs are left \[2\], right \[3\], and classes are named for 1: give --classes"),
        ([["a", "b"], ["c"]], None, "`right` has 3 logits, but 1 classes"),
        ([["a", "b"], ["c", "d", "c"]], None, "task `right` lists class `c` twice"),
        ([["a", "b"], ["c", "d", "e"]], ["t", "t"], "different task names"),
    ],
)
def test_tasks_that_do_not_fit(tmp_path: Path, classes: list, tasks: list | None, reason: str) -> None:
    with pytest.raises(ZipitError, match=reason):
        zipit_torch.export(Two(), out=tmp_path / "a.safetensors", classes=classes, tasks=tasks, preprocess=SPEC)
    assert list(tmp_path.iterdir()) == []


def masked_networks(path: Path, **changed: torch.Tensor | None) -> list[dict[str, torch.Tensor]]:
    """Two networks that share the convolution, written by hand as crates/artifact/README.md says; gives their state dicts."""
    nets = [randomise(Small()).state_dict() for _ in range(2)]
    graph = model_of(Small(), 8).graph
    base = nets[0]["conv.weight"]
    numbers = torch.arange(base.numel())
    unified = (numbers.reshape(base.shape) - 50) / 16
    rescalers = torch.tensor([1.5, 0.7], dtype=torch.float64)
    tensors = {"conv.weight/base": base, "conv.weight/unified": unified, "rescalers": rescalers}
    for t, net in enumerate(nets):
        bits = (numbers + t) % 3 > 0
        packed = torch.zeros(-(-base.numel() // 8) * 8, dtype=torch.long)
        packed[: base.numel()] = bits
        bytes_ = (packed.reshape(-1, 8) * 2 ** torch.arange(8)).sum(1).to(torch.uint8)
        tensors[f"conv.weight/mask/{t}"] = bytes_
        for name in set(tensor_names(graph)) - {"conv.weight"}:
            net[name] = net[name] + t
            tensors[f"{name}/own/{t}"] = net[name]
        net["conv.weight"] = base + (rescalers[t] * bits.reshape(base.shape) * unified).float()
    tensors = {name: tensor for name, tensor in (tensors | changed).items() if tensor is not None}
    tasks = [[{"name": name, "classes": ["a", "b"]}] for name in ("cats", "dogs")]
    metadata = {
        "zipit.kind": "masked",
        "zipit.version": "1",
        "zipit.networks": json.dumps([{"graph": graph, "tasks": own} for own in tasks]),
        "zipit.preprocess": json.dumps(SPEC),
    }
    safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata)
    return nets


def test_one_of_masked_networks(tmp_path: Path) -> None:
    path, images = tmp_path / "masked.safetensors", torch.rand(3, 3, 8, 8)
    for task, wanted in zip(["cats", "dogs"], masked_networks(path), strict=True):
        net, loaded = Small().eval(), zipit_torch.load(path, task)
        net.load_state_dict(wanted)
        assert [own["name"] for own in loaded.tasks] == [task] and loaded.preprocess == SPEC
        torch.testing.assert_close(loaded.state_dict()["conv.weight"], wanted["conv.weight"])
        torch.testing.assert_close(loaded(images), {task: net(images)})
    for task, reason in [(None, "one for each task; name a task: cats, dogs"), ("emus", "no task `emus`; its tasks are")]:
        with pytest.raises(ZipitError, match=reason):
            zipit_torch.load(path, task)
    zipit_torch.export(randomise(Small()), out=path, classes=["a", "b"], preprocess=SPEC)
    with pytest.raises(ZipitError, match="it is one network"):
        zipit_torch.load(path, "task")


@pytest.mark.parametrize(
    ("name", "tensor", "reason"),
    [
        ("conv.weight/mask/1", None, "it has no tensor `conv.weight/mask/1`"),
        ("conv.weight/mask/1", torch.zeros(13, dtype=torch.uint8), "of `conv.weight` do not fit"),
        ("conv.weight/unified", torch.zeros(4, 27), "of `conv.weight` do not fit"),
        ("rescalers", torch.ones(1, dtype=torch.float64), "of `conv.weight` do not fit"),
        ("rescalers", None, "it has no tensor `rescalers`"),
    ],
)
def test_masked_networks_that_lie(tmp_path: Path, name: str, tensor: torch.Tensor | None, reason: str) -> None:
    path = tmp_path / "masked.safetensors"
    masked_networks(path, **{name: tensor})
    with pytest.raises(ZipitError, match=reason):
        zipit_torch.load(path, "dogs")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_checkpoints_dtype_is_kept(tmp_path: Path, dtype: torch.dtype) -> None:
    saved = {name: t.to(dtype) if t.is_floating_point() else t for name, t in randomise(Small()).state_dict().items()}
    torch.save(saved, tmp_path / "c.pth")
    path = tmp_path / "a.safetensors"
    zipit_torch.export(Small(), tmp_path / "c.pth", out=path, classes=["a", "b"], preprocess=SPEC)
    written = safetensors.torch.load_file(path)
    assert {t.dtype for t in written.values()} == {dtype}
    assert all(torch.equal(t, saved[name]) for name, t in written.items())
    assert all(t.dtype == torch.float32 for t in zipit_torch.load(path).parameters())


def test_numbers_that_are_not_finite(tmp_path: Path) -> None:
    net = Small()
    net.fc.weight.data[0, 0] = float("nan")
    with pytest.raises(ZipitError, match="fc.weight: has numbers that are not finite"):
        zipit_torch.export(net, out=tmp_path / "a.safetensors", classes=["a", "b"], preprocess=SPEC)


def test_merged_graphs() -> None:
    """What merging writes: copies per model, sums of several values, a concatenation of one, slices."""
    conv = {
        "op": "conv2d",
        "in_channels": 3,
        "out_channels": 4,
        "window": {"kernel": [1, 1], "stride": [1, 1], "padding": [0, 0]},
        "groups": 1,
        "bias": False,
    }
    linear = {"op": "linear", "in_features": 3, "out_features": 2, "bias": True}

    def node(name: str, op: dict, *inputs: str) -> dict:
        return {"name": name, "op": op, "inputs": list(inputs)} | ({"module": name} if "bias" in op else {})

    nodes = [
        *(node(f"models.{i}.layer1.0.conv1", conv, "x") for i in range(3)),
        node("layer1.0.add", {"op": "add"}, *(f"models.{i}.layer1.0.conv1" for i in range(3))),
        node("cat", {"op": "concat"}, "layer1.0.add"),
        node("slice", {"op": "slice", "ranges": [[3, 4], [0, 2]]}, "cat"),
        node("mean", {"op": "mean"}, "slice"),
        node("models.0.fc", linear, "mean"),
        node("models.1.fc", linear, "mean"),
        node("gate", linear, "mean"),
    ]
    graph = {
        "arch": "merged",
        "input": {"name": "x", "shape": [3, 4, 4]},
        "nodes": nodes,
        "outputs": ["models.0.fc", "models.1.fc", "gate"],
    }
    tensors = {name: torch.randn(2, 3) if "weight" in name else torch.randn(2) for name in tensor_names(graph)}
    tensors |= {f"models.{i}.layer1.0.conv1.weight": torch.randn(4, 3, 1, 1) for i in range(3)}
    tasks = [{"name": name, "classes": ["0", "1"]} for name in ("a", "b")]
    net = network.build(Model(graph, tasks, {}, tensors, gate=True))
    assert set(net.state_dict()) == set(tensors)
    images = torch.randn(2, 3, 4, 4)
    found = net(images)
    assert list(found) == ["a", "b", "gate"]
    weight = sum(tensors[f"models.{i}.layer1.0.conv1.weight"] for i in range(3))
    features = torch.nn.functional.conv2d(images, weight)[:, [3, 0, 1]].mean((2, 3))
    expected = features @ tensors["models.1.fc.weight"].T + tensors["models.1.fc.bias"]
    torch.testing.assert_close(found["b"], expected)


def test_files_that_are_no_models(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(ZipitError, match="no such file"):
        model_file.read(path)
    path.write_bytes(b"abc")
    with pytest.raises(ZipitError, match="not a safetensors file"):
        model_file.read(path)
    safetensors.torch.save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ZipitError, match="has no `zipit.graph`"):
        model_file.read(path)
    graph = model_of(Small()).graph
    safetensors.torch.save_file({"a": torch.zeros(1)}, path, {"zipit.graph": json.dumps(graph)})
    with pytest.raises(ZipitError, match="the graph needs bn.bias"):
        model_file.read(path)
    safetensors.torch.save_file({"a": torch.zeros(1)}, path, {"zipit.graph": "{"})
    with pytest.raises(ZipitError, match="`zipit.graph` is no JSON"):
        model_file.read(path)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a.safetensors"
    command = [
        "export",
        "torchvision.models:resnet18",
        "--size",
        "32",
        "--classes",
        "5-9",
        "--task",
        "t",
        "--no-import",
    ]
    command += ["--channels", "3"]
    assert zipit_torch.main([*command, "--mean", "0.5", "--std", "0.25", "--seed", "3", "-o", str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("max |Δ| ") and "torch.manual_seed(3)" in printed.err
    model = model_file.read(out)
    assert model.tasks == [{"name": "t", "classes": ["5", "6", "7", "8", "9"]}]
    assert model.preprocess == {"size": [32, 32], "mean": [0.5] * 3, "std": [0.25] * 3}
    assert model.graph["arch"] == "resnet18"
    assert model.environment["exporter"].startswith("zipit_torch.py export torchvision.models:resnet18 --size 32")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["torchvision.models:resnet18", "--size", "32", "--classes", "a,b"], "the preprocessing is not known"),
        (["torchvision.models:resnet18"], "the outputs are task [1000], and classes are named for 0: give --classes a,b,c"),
        (["torchvision.models:resnet17", "--classes", "a,b"], "has no function `resnet17`"),
        (["nothing.here:build", "--classes", "a,b"], "`nothing.here` cannot be imported"),
        (["nothing.py:build", "--classes", "a,b"], "nothing.py: no such file"),
        (["resnet18", "--classes", "a,b"], "names no factory"),
        (["torchvision.models:resnet18", "--arg", "depth=3", "--classes", "a,b"], "the factory, called with"),
        (
            ["torchvision.models:resnet18", "--checkpoint", "nothing.pth", "--classes", "a,b"],
            "nothing.pth: no such file",
        ),
        (["torchvision.models:resnet18", "--weights", "MINE", "--classes", "a,b"], "no weights `MINE`"),
    ],
)
def test_commands_that_fail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    assert zipit_torch.main(["export", *arguments, "--no-import", "-o", str(tmp_path / "a.safetensors")]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and reason in errors[0]
    assert list(tmp_path.iterdir()) == []


def test_usage_errors(tmp_path: Path) -> None:
    for arguments in (["export"], ["export", "a:b", "--size", "big", "-o", "x"], ["convert"]):
        with pytest.raises(SystemExit) as error:
            zipit_torch.main(arguments)
        assert error.value.code == 2


def test_without_binaries(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["export", "torchvision.models:resnet18", "--size", "32", "--mean", "0,0,0", "--std", "1,1,1"]
    command += ["--classes", "a,b"]
    assert zipit_torch.main([*command, "--bin", str(tmp_path), "-o", str(tmp_path / "a.safetensors")]) == 1
    assert "--no-import" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_weights_know_their_preprocessing() -> None:
    weights = models.get_model_weights("vit_b_16")["IMAGENET1K_SWAG_E2E_V1"]
    chosen = request.choose_preprocess("torchvision.models:vit_b_16", nn.Identity(), weights)
    assert (chosen["size"], chosen.get("resize"), chosen["interpolation"]) == ([384, 384], None, "bicubic")
    chosen = request.choose_preprocess("torchvision.models:resnet50", nn.Identity())
    assert chosen == preprocessing.imagenet()


def test_transform() -> None:
    from PIL import Image

    spec = preprocessing.preprocess((24, 24), [0.5], [0.25], 32)
    image = preprocessing.transform(spec)(Image.new("RGB", (64, 48), (255, 255, 255)))
    assert image.shape == (1, 24, 24)
    torch.testing.assert_close(image, torch.full((1, 24, 24), 2.0))


class Attentive(nn.Module):
    """A little of everything that is harder in ONNX: tokens, attention, layer norms, a border, a shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 2, 2)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.fc = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.channel_shuffle(self.stem(nn.functional.pad(x, (1, 1, 1, 1))), 2)
        x = x.flatten(2).transpose(1, 2)
        return self.fc(self.layer(torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1))[:, 0])


def test_what_is_loaded_can_be_traced_and_compiled(tmp_path: Path) -> None:
    zipit_torch.export(randomise(Attentive()), out=tmp_path / "a.safetensors", classes=["a", "b"], preprocess=SPEC)
    net, images = zipit_torch.load(tmp_path / "a.safetensors"), torch.rand(3, 3, 8, 8)
    for made in (torch.fx.symbolic_trace(net), torch.compile(net, backend="eager", fullgraph=True)):
        torch.testing.assert_close(made(images)["task"], net(images)["task"])


@pytest.mark.parametrize(
    ("net", "classes"),
    [(Two(), [["a", "b"], ["c", "d", "e"]]), (Attentive(), [["a", "b"]])],
    ids=["two tasks", "attention"],
)
def test_onnx(tmp_path: Path, net: nn.Module, classes: list[list[str]]) -> None:
    zipit_torch.export(randomise(net), out=tmp_path / "a.safetensors", classes=classes, preprocess=SPEC)
    assert zipit_torch.export_onnx(tmp_path / "a.safetensors", tmp_path / "a.onnx") <= 1e-4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "a.safetensors"]


def test_foreign_nets_are_named_as_torchvisions() -> None:
    graph = model_of(build(foreign_nets.mobilenet_v2), 28, channels=1).graph
    assert "features.2.conv.1.0" in names(graph)
    graph = model_of(build(foreign_nets.vit), 28, channels=1).graph
    assert "encoder.layers.encoder_layer_3.self_attention.attention" in names(graph)
