#!/usr/bin/env bash
# TIES merging in mergekit and in FusionBench, of two fine-tunes that cancel each other.
#
# A good engineer would guess that of τ and −τ nothing is left: their sum is zero, and a sign that nobody has a majority for
# elects nobody. The paper says γ = sgn(Σ τ) and does not say what follows from zero. mergekit takes ≥ 0 for positive, so that
# the merge is |τ|; FusionBench, as the authors' code, compares with > 0 and takes the rest for negative: −|τ|. Both move every
# weight away from the base, in opposite directions, by as much as a whole fine-tune. Beside that, of eight entries at a
# density of one half mergekit leaves four, and FusionBench five: it takes what is not smaller than the (n − k)-th smallest.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
pip() { "$folder/env/bin/pip" --quiet --disable-pip-version-check install "$@"; }
pip mergekit==0.1.5 torch==2.15.0 numpy==2.4.6 safetensors==0.8.0 transformers==5.24.0 accelerate==1.15.0
pip omegaconf==2.3.1 bidict==0.24.1 hydra-core==1.3.8 lightning==2.6.6 tensorboard==2.21.0 datasets==5.2.0
pip --no-deps fusion-bench==0.2.33
cd "$folder"
"$folder/env/bin/python" - <<'PYTHON' 2> "$folder/said" || { cat "$folder/said" >&2; exit 1; }
import contextlib
import io
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import torch
from fusion_bench.method.ties_merging.ties_merging_utils import ties_merging
from safetensors.torch import load_file, save_file

print("mergekit", version("mergekit"), "fusion-bench", version("fusion-bench"), "torch", torch.__version__)

def mergekit(vectors, density):
    """On files of one tensor each, the base zero; what agrees is added."""
    save_file({"w": torch.zeros_like(vectors[0])}, "base.safetensors")
    lines = ["merge_method: ties", "base_model: base.safetensors", f"parameters: {{density: {density}, normalize: false}}", "models:"]
    for i, vector in enumerate(vectors):
        save_file({"w": vector}, f"{i}.safetensors")
        lines.append(f"- {{model: {i}.safetensors, parameters: {{weight: 1.0}}}}")
    Path("config.yml").write_text("\n".join(lines))
    program = Path(sys.executable).with_name("mergekit-pytorch")
    subprocess.run([program, "config.yml", "out"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return load_file(next(Path("out").glob("*.safetensors")))["w"]

def fusion_bench(vectors, density):
    with contextlib.redirect_stdout(io.StringIO()):
        return ties_merging(torch.stack([v.flatten() for v in vectors]), density, "dis-sum").reshape(vectors[0].shape)

x = torch.tensor([[4.0, -3.0, 2.0, 1.0], [0.5, 0.0, -1.5, 6.0]])
merged = {"mergekit": mergekit([x, -x], 0.9), "FusionBench": fusion_bench([x, -x], 0.9)}
# At a density of 0.9 seven of eight are left: all but the zero.
print("fine-tune 1 less the base", x.flatten().tolist(), "and fine-tune 2 its negative")
for tool, value in merged.items():
    print(f"{tool:12} {value.flatten().tolist()}")
assert torch.equal(merged["mergekit"], x.abs()) and torch.equal(merged["FusionBench"], -x.abs())

left = {"mergekit": mergekit([x, x], 0.5), "FusionBench": fusion_bench([x, x], 0.5)}
counts = {tool: int((value != 0).sum()) for tool, value in left.items()}
print("entries of 8 that a density of 0.5 leaves:", counts)
assert counts == {"mergekit": 4, "FusionBench": 5}
PYTHON
