"""Networks as they are named: programs, folders of timm's, what lies beside a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from conftest import model_of, randomise
from test_checkpoints import Small
from torch import nn

import zipit_torch
from torch_graph import card, model_file, preprocess, program
from torch_graph.errors import ZipitError

FLAGS = ["--size", "16", "--mean", "0.5", "--std", "0.25", "--channels", "3"]


class Odd(Small):
    """With a layer that holds no parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.GELU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.act(self.bn(self.conv(x))).mean((2, 3)))


def saved(net: nn.Module, path: Path, dynamic: bool = True) -> Path:
    shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
    torch.export.save(torch.export.export(net, (torch.rand(2, 3, 16, 16),), dynamic_shapes=shapes), path)
    return path


def run(tmp_path: Path, *arguments: str) -> model_file.Model:
    out = tmp_path / "out.safetensors"
    assert zipit_torch.main(["export", *arguments, "--no-import", "-o", str(out)]) == 0
    return model_file.read(out)


def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert zipit_torch.main(["export", *arguments, "--no-import", "-o", str(tmp_path / "out.safetensors")]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("note: ")]
    assert line.startswith("error: ")
    return line


def test_a_program_is_the_network_it_was_traced_from(tmp_path: Path) -> None:
    net = randomise(Odd())
    path = saved(net, tmp_path / "odd.pt2")
    ours, theirs = model_of(program.module(path)), model_of(net)
    assert ours.graph["nodes"][0]["inputs"] == ["x"] and ours.graph == theirs.graph
    assert all(torch.equal(tensor, theirs.tensors[name]) for name, tensor in ours.tensors.items())
    model = run(tmp_path, str(path), *FLAGS, "--classes", "a,b")
    assert model.graph["arch"] == "odd" and set(model.tensors) == set(theirs.tensors)


def test_programs_that_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fixed = str(saved(Small(), tmp_path / "fixed.pt2", dynamic=False))
    (tmp_path / "text.pt2").write_text("nothing")
    classes = [*FLAGS, "--classes", "a,b"]
    assert "was exported for batches of 2 alone" in refused(tmp_path, capsys, fixed, *classes)
    assert "not a program" in refused(tmp_path, capsys, str(tmp_path / "text.pt2"), *classes)
    assert "no such file" in refused(tmp_path, capsys, str(tmp_path / "none.pt2"), *classes)


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_a_folder_of_timms(tmp_path: Path, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "hub"
    folder.mkdir()
    net = randomise(timm.create_model("test_resnet", num_classes=3))
    save = safetensors.torch.save_file if file.endswith("s") else torch.save
    save(net.state_dict(), folder / file)
    config = {
        "architecture": "test_resnet",
        "num_classes": 3,
        "label_names": ["cat", "dog", "owl"],
        "pretrained_cfg": {
            "input_size": [3, 64, 64],
            "crop_pct": 0.8,
            "interpolation": "bicubic",
            "crop_mode": "squash",
            "mean": [0.4, 0.5, 0.6],
            "std": [0.2, 0.2, 0.2],
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    model = run(tmp_path, f"timm:local-dir:{folder}", "--task", "pets")
    assert model.graph["arch"] == "test_resnet"
    assert model.tasks == [{"name": "pets", "classes": ["cat", "dog", "owl"]}]
    assert model.preprocess == {
        "size": [64, 64],
        "resize": 80,
        "interpolation": "bicubic",
        "crop": "squash",
        "mean": [0.4, 0.5, 0.6],
        "std": [0.2, 0.2, 0.2],
    }
    assert all(torch.equal(tensor, net.state_dict()[name]) for name, tensor in model.tensors.items())
    said = ["--classes", "a,b,c", "--size", "32", "--mean", "0.5", "--std", "0.25", "--channels", "3", "--crop", "center", "--crop-pct", "1"]
    beside = run(tmp_path, "timm:test_resnet", "--checkpoint", str(folder), *said)
    assert beside.tasks[0]["classes"] == ["a", "b", "c"] and all(torch.equal(t, model.tensors[n]) for n, t in beside.tensors.items())
    assert beside.preprocess == {"size": [32, 32], "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.25] * 3}
    (folder / "config.json").write_text(json.dumps(config | {"label_names": ["cat"]}))
    assert "names 1 classes, of 3" in refused(tmp_path, capsys, f"timm:local-dir:{folder}")
    (folder / "config.json").write_text("{")
    assert "config.json: cannot be read" in refused(tmp_path, capsys, f"timm:local-dir:{folder}")
    assert "no such folder" in refused(tmp_path, capsys, f"timm:local-dir:{tmp_path / 'none'}")


def test_hugging_faces_labels_are_classes(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"1": "dog", "0": "cat"}, "model_type": "resnet"}))
    found = card.beside(tmp_path / "model.safetensors")
    assert found and found.classes == ["cat", "dog"] and preprocess.of_timm(found.pretrained_cfg) is None
    with pytest.raises(ZipitError, match="holds no checkpoint"):
        card.weights_in(tmp_path)
    for name in ("a.pth", "b.pth"):
        (tmp_path / name).touch()
    with pytest.raises(ZipitError, match=r"several checkpoints \(a.pth, b.pth\)"):
        card.weights_in(tmp_path)


def test_the_hub_without_a_network_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    line = refused(tmp_path, capsys, "timm:hf-hub:timm/nothing_of_that_name", "--classes", "a,b")
    assert "the factory, called with" in line
