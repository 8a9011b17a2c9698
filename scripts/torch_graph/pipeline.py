"""The Rust binaries an export needs: `import` makes the model file, `predict` must agree with PyTorch."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch

from .errors import ZipitError, note
from .model_file import Model

BATCH = 2
"""A few images are one of `predict`'s own batches, which one thread takes."""

DEFAULT_BIN = Path(__file__).resolve().parents[2] / "target/release"


def binary(folder: Path, name: str) -> Path:
    """One of the binaries, which `cargo build --release` makes."""
    path = folder / name
    if not os.access(path, os.X_OK):
        raise ZipitError(
            f"there is no `{name}` in {folder}: build it (cargo build --release -p zipit-{name}), name its folder with "
            "--bin, or export a plain file with --no-import"
        )
    return path


def run(command: list[str | Path]) -> None:
    """Runs a binary; what it complains about is passed on."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().removeprefix("error: ").splitlines() or [f"exit code {done.returncode}"]
        raise ZipitError(f"{Path(command[0]).name}: {lines[0] if len(lines) == 1 else ' '.join(lines)}")
    for line in done.stderr.splitlines():
        if line.lstrip().startswith("WARN "):
            note(line.lstrip().removeprefix("WARN "))


def import_model(folder: Path, exported: Path, sources: list[Path], out: Path) -> None:
    """Makes a file of the pipeline of a plain exported one."""
    named = [part for source in sources for part in ("--source", source)]
    run([binary(folder, "import"), exported, *named, "-o", out, "--force"])


def predict(
    folder: Path, path: Path, model: Model, images: torch.Tensor, task: str | None = None
) -> list[torch.Tensor]:
    """Each output of a model file, [B, …], computed by the Rust side; of masked networks those of the one of `task`."""
    with tempfile.TemporaryDirectory() as temporary:
        given, made = Path(temporary, "images.npy"), Path(temporary, "logits.npz")
        np.save(given, images.numpy())
        which = [] if task is None else ["--task", task]
        run([binary(folder, "predict"), path, *which, "--images", given, "--batch-size", str(BATCH), "-o", made])
        with np.load(made) as arrays:
            missing = [name for name in model.output_names if name not in arrays]
            if missing:
                raise ZipitError(f"predict wrote {', '.join(arrays)}, and not `{missing[0]}`")
            return [torch.from_numpy(arrays[name]) for name in model.output_names]
