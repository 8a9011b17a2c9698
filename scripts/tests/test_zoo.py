"""The page of the zoo: what it says is enough to go on from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import zoo

PAGE = Path(__file__).parents[2] / "docs" / "zoo.md"


def test_a_page_of_what_the_page_says_is_the_page(tmp_path: Path) -> None:
    page = PAGE.read_text()
    for row in zoo.rows_of(page):
        (tmp_path / f"{row['name'].replace(':', '_')}.json").write_text(json.dumps(row))
    assert zoo.table(tmp_path) == page.removesuffix("\n")


@pytest.mark.parametrize(
    "row",
    [
        {"name": "beit_base_patch16_224", "error": "`a|b`: refused"},
        {
            "name": "torchvision:resnet18",
            "settled": True,
            "size": [224, 200],
            "parameters": 11.2e6,
            "forward": 3e-05,
            "spread": 2e-05,
            "carried": {"": 3},
            "nodes": 50,
            "spaces": 10,
            "kept": 2,
            "flops": 1.25,
            "permuted": 2e-3,
            "permuted_spread": 1e-3,
            "error": "onnx: refused",
        },
    ],
)
def test_a_row_is_read_as_it_was(tmp_path: Path, row: dict) -> None:
    (tmp_path / "row.json").write_text(json.dumps(row))
    [found] = zoo.rows_of(zoo.table(tmp_path))
    assert found == row
