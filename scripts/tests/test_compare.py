"""What an export is compared on, and how far apart it may be."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torch_graph import compare
from torch_graph.errors import ZipitError


class Cancelling(nn.Module):
    """x, behind a large number that f32 loses much of x to."""

    def __init__(self, large: float) -> None:
        super().__init__()
        self.large = nn.Parameter(torch.tensor(large))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return ((x + self.large) - self.large).flatten(1)


class InSingle(Cancelling):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.float()) if x.dtype == torch.float32 else x.new_zeros(3, dtype=torch.int32) @ x


IMAGES = compare.smooth((2, 1, 8, 8))


def test_images_are_smooth_and_the_same_every_time() -> None:
    assert torch.equal(IMAGES, compare.smooth((2, 1, 8, 8)))
    assert 0 <= IMAGES.min() < IMAGES.max() <= 1
    large = compare.smooth((1, 1, 64, 64))
    assert (large[..., 1:] - large[..., :-1]).abs().max() < 0.25 * (large.max() - large.min())


def test_a_difference_is_held_against_the_networks_own_rounding() -> None:
    rough, exact = Cancelling(1e5), Cancelling(0.0)
    own = max(compare.spread(rough, IMAGES))
    assert own > 10 * compare.TOLERANCE
    assert compare.spread(exact, IMAGES) == [0.0]
    (truth,) = compare.logits(rough, IMAGES)
    assert compare.difference([truth + 2 * own], compare.Reference(rough, IMAGES), "it") == pytest.approx(2 * own, rel=1e-2)
    with pytest.raises(ZipitError, match="it differs from PyTorch by max"):
        compare.difference([truth + 5 * own], compare.Reference(rough, IMAGES), "it")
    (truth,) = compare.logits(exact, IMAGES)
    with pytest.raises(ZipitError, match="more than 1.0e-04"):
        compare.difference([truth + 2 * own], compare.Reference(exact, IMAGES), "it")


def test_a_network_that_cannot_run_in_double_has_no_rounding_of_its_own() -> None:
    assert compare.spread(InSingle(1e5), IMAGES) == [0.0]


def test_numbers_that_are_none_and_other_shapes_are_refused() -> None:
    exact = Cancelling(0.0)
    (truth,) = compare.logits(exact, IMAGES)
    with pytest.raises(ZipitError, match="nan"):
        compare.difference([truth * float("nan")], compare.Reference(exact, IMAGES), "it")
    with pytest.raises(ZipitError, match=r"gives \[2, 63\] where PyTorch gives \[2, 64\]"):
        compare.difference([truth[:, 1:]], compare.Reference(exact, IMAGES), "it")


class InPlace(nn.Module):
    """Changes its image and a counter, and reads both."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x.sub_(0.5)
        self.seen.add_(1)
        return (self.seen * x).flatten(1)


def test_what_a_network_changes_in_place_is_as_before_the_next_time() -> None:
    images = IMAGES.clone()
    network = InPlace()
    (first,), (second,) = compare.logits(network, images), compare.logits(network, images)
    assert torch.equal(first, second) and torch.equal(images, IMAGES) and network.seen == 0
    assert compare.spread(network, images) == [0.0]


class Caches(nn.Module):
    """Puts a table of the size that it needs in the place of its buffer, as timm's ConViT."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.zeros(1), persistent=False)
        self.register_buffer("expanded", torch.zeros(1, 7).expand(7, -1))
        self.register_buffer("first", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1)
        if self.first is None:
            self.first = x.mean()
        if self.table.numel() != x.shape[1]:
            self.table = torch.arange(float(x.shape[1]))
        return x * self.table + self.first


def test_a_buffer_that_a_network_replaces() -> None:
    network = Caches()
    (first,), _, (second,) = (compare.logits(network, images) for images in (IMAGES, IMAGES + 1, IMAGES))
    assert torch.equal(first, second) and first.abs().max() > 0 and network.first is None


def test_infinities_hide_no_difference() -> None:
    class Masked(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1).masked_fill(torch.arange(64) == 3, float("-inf"))

    (truth,) = compare.logits(Masked(), IMAGES)
    lowest = truth.clamp(min=torch.finfo(torch.float32).min)
    assert compare.difference([lowest], compare.Reference(Masked(), IMAGES), "it") == 0
    lowest[0, 5] += 0.01
    with pytest.raises(ZipitError, match="it differs"):
        compare.difference([lowest], compare.Reference(Masked(), IMAGES), "it")


def test_no_rounding_excuses_a_large_difference() -> None:
    rough = Cancelling(1e7)
    (truth,) = compare.logits(rough, IMAGES)
    with pytest.raises(ZipitError, match="more than 5"):
        compare.difference([truth + 0.1], compare.Reference(rough, IMAGES), "it")
