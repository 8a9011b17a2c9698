"""Views come back to where they began, or say why they cannot."""

from __future__ import annotations

import pytest
import torch

from torch_graph.axes import BATCH, FEATURES, REPEATED, Atom, AxesError, Layout

B, C, H, W = 2, 12, 5, 7


def image() -> Layout:
    return Layout.of((B, C, H, W))


def test_identity() -> None:
    assert image().is_identity
    assert image().shape == (B, C, H, W)
    assert image().whole(FEATURES) == (Atom(1, 1, C),)


def test_sizes_of_one_have_no_atoms() -> None:
    layout = Layout.of((B, C, 1, 1))
    assert layout.axes[2] == layout.axes[3] == ()
    assert layout.reshape((B, C)).reshape((B, C, 1, 1)) == layout


def test_flatten_and_back() -> None:
    flat = image().reshape((B, C * H * W))
    assert flat.axes[1] == image().all_of([1, 2, 3])
    assert flat.reshape((B, C, H, W)) == image()


def test_permute_and_back() -> None:
    last = image().permute([0, 2, 3, 1])
    assert last.shape == (B, H, W, C)
    assert last.permute([0, 3, 1, 2]) == image()


def test_timms_attention() -> None:
    qkv = Layout.of((B, 36, 5)).permute([0, 2, 1])
    cut = qkv.reshape((B, 5, 3, 4, 3)).permute([2, 0, 3, 1, 4])
    assert cut.shape == (3, B, 4, 5, 3)
    assert cut.axes == ((Atom(1, 12, 3),), (Atom(0, 1, B),), (Atom(1, 3, 4),), (Atom(2, 1, 5),), (Atom(1, 1, 3),))


def test_torchs_attention() -> None:
    """view(T, B·heads, h).transpose(0, 1).view(B, heads, T, h), batch and heads in one axis in between."""
    tokens = Layout.of((B, 12, 5)).permute([2, 0, 1])
    cut = tokens.reshape((5, B * 4, 3)).transpose(0, 1)
    assert cut.axes[0] == (Atom(0, 1, B), Atom(1, 3, 4))
    assert cut.reshape((B, 4, 5, 3)).axes == ((Atom(0, 1, B),), (Atom(1, 3, 4),), (Atom(2, 1, 5),), (Atom(1, 1, 3),))


def test_channel_shuffle_is_undone_by_its_inverse() -> None:
    def shuffle(layout: Layout, groups: int) -> Layout:
        return layout.reshape((B, groups, C // groups, H, W)).transpose(1, 2).reshape((B, C, H, W))

    shuffled = shuffle(image(), 3)
    assert shuffled.axes[1] == (Atom(1, 1, 4), Atom(1, 4, 3))
    assert shuffle(shuffled, 4) == image()


@pytest.mark.parametrize("shape", [(B * C, H * W), (B, 3, 2, 2, H * W), (B * C * H * W,), (B, 6, 2, 35), (4, 6, 35)])
def test_reshapes_agree_with_torch(shape: tuple[int, ...]) -> None:
    """An axis's index is made of its atoms' indices, the first the slowest."""
    layout = image().reshape(shape)
    assert layout.shape == shape
    numbers = torch.arange(B * C * H * W).reshape(shape)
    strides = (C * H * W, H * W, W, 1)
    rebuilt = torch.zeros(())
    for axis in layout.axes:
        index = torch.zeros(1, dtype=torch.long)
        for atom in axis:
            index = (index[:, None] + torch.arange(atom.size) * atom.stride * strides[atom.dim]).flatten()
        rebuilt = rebuilt[..., None] + index
    assert torch.equal(rebuilt.long(), numbers)


def test_a_cut_across_axes_is_refused() -> None:
    with pytest.raises(AxesError, match="cuts across"):
        Layout.of((B, 4, 3)).reshape((B, 6, 2))


def test_expand_and_insert() -> None:
    token = Layout.of((1, 1, C)).expand((B, -1, -1))
    assert token.axes[0] == (Atom(REPEATED, 0, B),)
    assert token.unrepeated() == Layout.of((1, 1, C))
    assert image().insert(1).drop([1]) == image()


def test_take_from_a_whole_axis() -> None:
    ranges, layout = image().take(1, 4, 10)
    assert ranges == [[4, 10]]
    assert layout == Layout.of((B, 6, H, W))


def test_take_one_of_a_cut_axis() -> None:
    """q of [3, heads, h]: a third of the features; and one of every head's."""
    cut = Layout.of((B, 12)).reshape((B, 3, 2, 2))
    ranges, layout = cut.take(1, 1, 2)
    assert ranges == [[4, 8]]
    assert layout.drop([1]).axes == ((Atom(0, 1, B),), (Atom(1, 2, 2),), (Atom(1, 1, 2),))
    ranges, layout = cut.take(3, 0, 1)
    assert ranges == [[i, i + 1] for i in range(0, 12, 2)]
    assert layout.dims == (B, 6)


def test_used_dims() -> None:
    assert image().reshape((B, C, H * W)).used([2]) == {2, 3}
    assert image().used([0]) == {BATCH}
