"""What lies beside a checkpoint: a `config.json`, as timm and Hugging Face write it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ZipitError
from .graph import Json

USUAL = ("model.safetensors", "pytorch_model.bin")
ENDINGS = (".safetensors", ".bin", ".pth", ".pt", ".pt2")


@dataclass
class Card:
    """What it says; None is silence."""

    path: Path
    classes: list[str] | None
    n_classes: int | None
    pretrained_cfg: Json


def weights_in(folder: Path) -> Path:
    """The one checkpoint in a folder."""
    if not folder.is_dir():
        raise ZipitError(f"{folder}: no such folder")
    usual = [folder / name for name in USUAL if (folder / name).is_file()]
    if usual:
        return usual[0]
    found = sorted(path for path in folder.iterdir() if path.suffix in ENDINGS)
    if len(found) != 1:
        what = f"several checkpoints ({', '.join(path.name for path in found)})" if found else "no checkpoint"
        raise ZipitError(f"{folder}: holds {what}; name one with --checkpoint")
    return found[0]


def beside(checkpoint: Path) -> Card | None:
    """The card of a checkpoint, if its folder has one that describes a classifier."""
    path = checkpoint.parent / "config.json"
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ZipitError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from error
    if not isinstance(found, dict):
        return None
    config = found.get("pretrained_cfg", found)
    config = config if isinstance(config, dict) else {}
    classes = found.get("label_names") or config.get("label_names") or _by_index(found.get("id2label"))
    classes = [str(name) for name in classes] if isinstance(classes, list) and classes else None
    n_classes = found.get("num_classes", config.get("num_classes"))
    if classes and isinstance(n_classes, int) and len(classes) != n_classes:
        raise ZipitError(f"{path}: names {len(classes)} classes, of {n_classes}; name them with --classes")
    return Card(path, classes, n_classes if isinstance(n_classes, int) else None, config)


def _by_index(names: Any) -> list[str] | None:
    """Hugging Face's `id2label`: {"0": "cat", "1": "dog"}."""
    if not isinstance(names, dict) or {str(key) for key in names} != {str(i) for i in range(len(names))}:
        return None
    return [names[key] for key in sorted(names, key=int)]
