"""Checkpoints as training frameworks save them."""

from __future__ import annotations

import argparse
import datetime
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from conftest import randomise
from torch import nn

from torch_graph import checkpoint
from torch_graph.errors import ZipitError

State = dict[str, torch.Tensor]


class Small(nn.Module):
    def __init__(self, num_classes: int = 2) -> None:
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.bn(self.conv(x)).relu().mean((2, 3)))


def under(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def halved(state: State) -> State:
    return {name: tensor.half() for name, tensor in state.items()}


class Trap:
    """Would leave a file if it were unpickled as Python does."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (open, (self.path, "w"))


OTHER = {"criterion.pos_weight": torch.tensor(2.0)}
SAVED: dict[str, tuple[Callable[[State], object], str]] = {
    "bare": (lambda s: s, ""),
    "Lightning with a loss": (
        lambda s: {"state_dict": under("model.", s) | OTHER, "epoch": 3},
        "left 1 other tensor in the checkpoint alone (state_dict.criterion.pos_weight)",
    ),
    "Lightning": (lambda s: {"state_dict": under("backbone.", s)}, "took the tensors under `state_dict.backbone`"),
    "arguments": (lambda s: {"model": s, "args": argparse.Namespace(lr=0.1)}, "took the tensors under `model`"),
    "numbers": (
        lambda s: {"model": s, "best": np.float64(0.9), "curve": np.arange(3.0), "when": datetime.datetime.now()},
        "",
    ),
    "half": (halved, ""),
    "beside": (lambda s: s | {"best_acc": torch.tensor(91.2), "epoch": torch.tensor(3)}, "left 2 other tensors"),
    "DataParallel": (lambda s: under("module.", s), ""),
    "distributed and nested": (lambda s: {"net": {"state_dict": under("module.", s)}}, ""),
    "torch.compile": (lambda s: under("_orig_mod.", s), ""),
    "timm": (lambda s: {"state_dict": s, "state_dict_ema": {n: t + 1 for n, t in s.items()}, "arch": "a"}, "more than once"),
    "EMA": (lambda s: under("ema_model.", {n: t + 1 for n, t in s.items()}) | under("model.", s), "took `model.`, not `ema_"),
    "student and teacher": (lambda s: under("net.", s) | under("teacher.net.", {n: t + 1 for n, t in s.items()}), "more than"),
    "mmcv": (lambda s: {"meta": {"CLASSES": ("a",)}, "state_dict": s, "optimizer": {"state": {0: {"m": s["fc.bias"]}}}}, ""),
    "detectron": (lambda s: {"model": under("backbone.bottom_up.", s) | under("roi.", OTHER), "iteration": 3}, ""),
    "a list": (lambda s: [s], "under `0`"),
    "a parameter each": (lambda s: {n: nn.Parameter(t) if t.is_floating_point() else t for n, t in s.items()}, ""),
}


@pytest.mark.parametrize("what", SAVED)
@pytest.mark.parametrize("zipped", [True, False])
def test_what_is_saved_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str, zipped: bool) -> None:
    wrap, told = SAVED[what]
    net, other = randomise(Small()), Small()
    torch.save(wrap(net.state_dict()), tmp_path / "c.pt", _use_new_zipfile_serialization=zipped)
    checkpoint.fill(other, checkpoint.read(tmp_path / "c.pt"), "c.pt")
    torch.testing.assert_close(other.fc.weight, net.fc.weight, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(other.bn.running_var, net.bn.running_var, rtol=1e-3, atol=1e-3)
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("wrap", [lambda net: net, lambda net: {"model": net, "epoch": 3}, nn.DataParallel])
def test_whole_modules_are_read_as_their_state_dict(tmp_path: Path, wrap: Callable[[nn.Module], object]) -> None:
    net, other = randomise(Small()), Small()
    torch.save(wrap(net), tmp_path / "c.pt")
    assert set(checkpoint.fill(other, checkpoint.read(tmp_path / "c.pt"), "c.pt")) == set(net.state_dict())
    assert torch.equal(other.conv.weight, net.conv.weight)


@pytest.mark.parametrize("zipped", [True, False])
def test_no_code_is_run(tmp_path: Path, zipped: bool) -> None:
    trap, net = tmp_path / "sprung", randomise(Small())
    torch.save({"model": net.state_dict(), "x": Trap(str(trap))}, tmp_path / "c.pt", _use_new_zipfile_serialization=zipped)
    other = Small()
    checkpoint.fill(other, checkpoint.read(tmp_path / "c.pt"), "c.pt")
    assert torch.equal(other.conv.weight, net.conv.weight) and not trap.exists()
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Trap(str(trap))))
    with pytest.raises(ZipitError):
        checkpoint.read(tmp_path / "plain.pkl")
    assert not trap.exists()


def test_a_key_is_a_path_through_dicts_and_prefixes(tmp_path: Path) -> None:
    net, ema, other = randomise(Small()), Small(), Small()
    saved = {"state_dict": under("model.", net.state_dict()) | under("ema.", ema.state_dict())}
    torch.save(saved, tmp_path / "c.pt")
    tensors = checkpoint.read(tmp_path / "c.pt")
    for key, expected in (("state_dict.model", net), ("state_dict.ema", ema), ("state_dict.ema.", ema)):
        checkpoint.fill(other, tensors, "c.pt", key)
        assert torch.equal(other.conv.weight, expected.conv.weight)
    with pytest.raises(ZipitError, match="no tensor of this network is under `ema`; found some under: `state_dict.ema.`"):
        checkpoint.fill(other, tensors, "c.pt", "ema")


def test_checkpoints_that_do_not_fit(tmp_path: Path) -> None:
    state = Small().state_dict()
    del state["fc.bias"]
    state |= {"fc.weight": torch.zeros(7, 4), "extra": torch.zeros(1)}
    torch.save(state, tmp_path / "c.pt")
    with pytest.raises(ZipitError, match="missing: fc.bias; not in the network: extra; of another shape: fc.weight is"):
        checkpoint.fill(Small(), checkpoint.read(tmp_path / "c.pt"), "c.pt")
    with pytest.raises(ZipitError, match="none of the network's tensors is in this file, whose 9 tensors begin with"):
        checkpoint.fill(nn.MultiheadAttention(2, 1), checkpoint.read(tmp_path / "c.pt"), "c.pt")
    (tmp_path / "text.pt").write_text("no checkpoint")
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "folder.pt").mkdir()
    for name in ("text.pt", "nothing.pt", "empty.pt", "list.pt", "folder.pt", "nothing.safetensors"):
        with pytest.raises(ZipitError, match=name) as error:
            checkpoint.read(tmp_path / name)
        assert "\n" not in str(error.value)


def test_torchscript_and_float8_are_refused_by_name(tmp_path: Path) -> None:
    net = randomise(Small())
    torch.jit.script(net).save(tmp_path / "script.pt")
    with pytest.raises(ZipitError, match="is a TorchScript program; save its weights alone"):
        checkpoint.read(tmp_path / "script.pt")
    state = {n: t.to(torch.float8_e4m3fn) if n == "fc.weight" else t for n, t in net.state_dict().items()}
    torch.save(state, tmp_path / "c.pt")
    safetensors.torch.save_file(state, tmp_path / "c.safetensors")
    for name in ("c.pt", "c.safetensors"):
        with pytest.raises(ZipitError, match=f"{name}: fc.weight is float8_e4m3fn, whose scale is not in it"):
            checkpoint.fill(Small(), checkpoint.read(tmp_path / name), name)


def test_names_that_save_model_left_out(tmp_path: Path) -> None:
    class Tied(Small):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 4, 3)
            self.first.weight = self.conv.weight

    net, other = randomise(Tied()), Tied()
    safetensors.torch.save_model(net, tmp_path / "c.safetensors")
    found = checkpoint.fill(other, checkpoint.read(tmp_path / "c.safetensors"), "c.safetensors")
    assert torch.equal(found["first.weight"], net.conv.weight) and torch.equal(found["conv.weight"], net.conv.weight)


def test_programs_of_torch_export(tmp_path: Path) -> None:
    net, other = randomise(Small()), Small()
    torch.export.save(torch.export.export(net, (torch.rand(2, 3, 8, 8),)), tmp_path / "c.pt2")
    checkpoint.fill(other, checkpoint.read(tmp_path / "c.pt2"), "c.pt2")
    assert torch.equal(other.conv.weight, net.conv.weight)


def test_two_networks_of_equal_rank_are_a_question(tmp_path: Path) -> None:
    names = [f"{who}.{name}" for who in ("teacher", "student") for name in ("conv.weight", "fc.bias")]
    expected = {"conv.weight", "fc.bias"}
    with pytest.raises(ZipitError, match="--key student or --key teacher"):
        checkpoint.find_prefix(tmp_path / "c.pt", names, expected)
    assert checkpoint.find_prefix(tmp_path / "c.pt", names, expected, "student") == "student."
