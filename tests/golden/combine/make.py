#!/usr/bin/env python3
"""Writes `values.json`: what mergekit and FusionBench make of two fine-tunes of one base, a single 2 x 4 matrix each.

    pip install mergekit==0.1.5 fusion-bench==0.2.33 joblib
    python3 tests/golden/combine/make.py > tests/golden/combine/values.json

`args` is how `combine` is asked for the same. `draws` are entries where the (weighted) task vectors add up to zero, so that no
sign has more weight: mergekit then takes the positive ones, FusionBench the negative ones, and ours takes none and leaves the
base's value. DARE has no case: every tool draws its own random numbers.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

BASE = torch.tensor([[0.0, 0, 0, 0], [1, 1, 1, 1]])
VECTORS = [
    torch.tensor([[4, -3, 2, 1], [0.5, -0.5, 0, -2]]),
    torch.tensor([[2, 1, -2, 3], [0.5, 0.25, -1, 2]]),
]
TUNED = [BASE + vector for vector in VECTORS]


def mergekit(config: dict[str, Any]) -> torch.Tensor:
    """Through its own programs' code, on files."""
    from mergekit.scripts.merge_raw_pytorch import main
    from click.testing import CliRunner
    import yaml
    from safetensors.torch import load_file, save_file

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for name, tensor in zip(["base", "a", "b", "minus"], [BASE, *TUNED, -TUNED[0]]):
            save_file({"w": tensor.contiguous()}, place / f"{name}.safetensors")
        text = yaml.safe_dump(config | {"dtype": "float32"}).replace("PLACE", folder)
        (place / "config.yml").write_text(text)
        ran = CliRunner().invoke(main, [str(place / "config.yml"), str(place / "out")])
        if ran.exit_code != 0:
            raise RuntimeError(f"mergekit refuses {config}: {ran.output}") from ran.exception
        return load_file(next((place / "out").glob("*.safetensors")))["w"]


def model(name: str, **parameters: float) -> dict[str, Any]:
    return {"model": f"PLACE/{name}.safetensors", "parameters": parameters}


def with_base(method: str, models: list[dict[str, Any]], **parameters: Any) -> torch.Tensor:
    base = "PLACE/base.safetensors"
    return mergekit({"merge_method": method, "base_model": base, "models": models, "parameters": parameters})


def cases() -> list[dict[str, Any]]:
    from fusion_bench.method.isotropic_merging.iso_utils import iso_c, iso_cts
    from fusion_bench.method.task_singular_vector.utils.TSVM_utils import compute_and_sum_svd_mem_reduction
    from fusion_bench.method.ties_merging.ties_merging_utils import ties_merging

    found: list[dict[str, Any]] = []

    def case(tool: str, args: str, value: torch.Tensor, draws: tuple[int, ...] = ()) -> None:
        found.append({"tool": tool, "args": args, "value": value.flatten().tolist(), "draws": list(draws)})

    kit, bench = "mergekit 0.1.5", "FusionBench 0.2.33"
    both = [model("a", weight=1.0), model("b", weight=1.0)]
    weighed = [model("a", weight=1.0), model("b", weight=3.0)]
    linear = mergekit({"merge_method": "linear", "models": weighed})
    case(kit, "--rule average --weights 1,3", linear)
    third = [model("a", weight=0.3), model("b", weight=0.3)]
    case(kit, "--rule task-arithmetic --weights 0.3,0.3 --scale 1", with_base("task_arithmetic", third))
    tensor = "--rule ties --trim-scope tensor"
    case(kit, f"{tensor} --density 0.5", with_base("ties", both, density=0.5, normalize=True), (2, 7))
    case(
        kit,
        f"{tensor} --density 0.5 --disjoint sum --scale 1",
        with_base("ties", both, density=0.5, normalize=False),
        (2, 7),
    )
    case(kit, f"{tensor} --density 1", with_base("ties", both, density=1.0, normalize=True), (2, 7))
    case(kit, f"{tensor} --density 1 --weights 1,3", with_base("ties", weighed, density=1.0, normalize=True), (1,))
    arc = {"merge_method": "slerp", "base_model": "PLACE/a.safetensors", "parameters": {"t": 0.5}}
    case(kit, "--rule slerp --t 0.5", mergekit(arc | {"models": [model("a"), model("b")]}))
    case(kit, "--rule slerp OPPOSITE", mergekit(arc | {"models": [model("a"), model("minus")]}))
    case(kit, "--rule model-stock", with_base("model_stock", both))
    crumbs = with_base("breadcrumbs", both, density=0.5, gamma=0.25)
    case(kit, "--rule breadcrumbs --density 0.5 --gamma 0.25 --scale 1", crumbs)

    flat = torch.stack([vector.flatten() for vector in VECTORS])
    for density, draws in [(0.2, ()), (0.5, (2, 7))]:
        for how in ["sum", "mean"]:
            merged = ties_merging(flat.clone(), reset_thresh=density, merge_func=f"dis-{how}")
            args = f"--rule ties --density {density} --disjoint {how} --scale 1"
            case(bench, args, BASE.flatten() + merged, draws)
    dicts = [{"w": vector} for vector in VECTORS]
    case(bench, "--rule iso-c", BASE + iso_c(dicts, accelerator="cpu")["w"])
    for common in [0.8, 0.0]:
        merged = iso_cts(dicts, common_space_fraction=common, accelerator="cpu")["w"]
        case(bench, f"--rule iso-cts --common {common}", BASE + merged)
    merged = compute_and_sum_svd_mem_reduction(dicts, accelerator="cpu")["w"]
    case(bench, "--rule tsv-m", BASE + merged)
    return found


def measured() -> list[dict[str, Any]]:
    """Rules that weigh by what was measured: of what the two layers read, and of their Fisher information, as it stands here."""
    from fusion_bench.method.fisher_merging.fisher_merging import merging_with_fisher_weights
    from fusion_bench.method.regmean.regmean import merging_with_regmean_weights

    bench = "FusionBench 0.2.33"
    read = [torch.eye(4), torch.eye(4)]
    read[0][:2, :2] = torch.tensor([[2.0, 1], [1, 2]])
    fisher = [torch.arange(1.0, 9).reshape(2, 4), torch.tensor([[8.0, 4, 2, 1], [1, 1, 3, 5]])]
    found = []
    for ratio in [1.0, 0.95]:
        merged = merging_with_regmean_weights({"w.weight": TUNED}, [{"w": gram} for gram in read], ratio)["w.weight"]
        grams = [gram.flatten().tolist() for gram in read]
        found.append({"tool": bench, "inputs": grams, "off_diagonal": ratio, "value": merged.flatten().tolist()})
    weights = [{"w": own} for own in fisher]
    merged = merging_with_fisher_weights({"w": TUNED}, weights, torch.ones(2) / 2, False, 0.0)["w"]
    own = [numbers.flatten().tolist() for numbers in fisher]
    return [*found, {"tool": bench, "fisher": own, "value": merged.flatten().tolist()}]


def emr() -> dict[str, Any]:
    """EMR-Merging of these vectors and of a second tensor's: the unified vector, masks, and rescalers of tensors' means, which
    are `combine --rule emr --rescalers tensors`."""
    from fusion_bench.method.emr_merging.utils import emr_merge

    second = [torch.tensor([1.0, 2]), torch.tensor([-3.0, 2])]
    unified, masks, rescalers = emr_merge([{"w": first, "v": other} for first, other in zip(VECTORS, second)])
    return {
        "tool": "FusionBench 0.2.33",
        "second": [vector.tolist() for vector in second],
        "unified": [unified[name].flatten().tolist() for name in ["w", "v"]],
        "masks": [[masks[name][t].flatten().int().tolist() for name in ["w", "v"]] for t in range(2)],
        "rescalers": rescalers.tolist(),
    }


def main() -> None:
    vectors = [vector.flatten().tolist() for vector in VECTORS]
    # FusionBench tells on stdout what it does.
    with contextlib.redirect_stdout(sys.stderr):
        lines = ",\n  ".join(json.dumps(case) for case in cases())
        more = ",\n  ".join(json.dumps(case) for case in measured())
        masks = json.dumps(emr())
    head = f'"base": {json.dumps(BASE.flatten().tolist())},\n "vectors": {json.dumps(vectors)}'
    print(f'{{{head},\n "cases": [\n  {lines}\n ],\n "measured": [\n  {more}\n ],\n "emr": {masks}}}')


if __name__ == "__main__":
    main()
