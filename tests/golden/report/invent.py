#!/usr/bin/env python3
"""Writes `results.json`: invented numbers of a plausible size, to try the report on. Nothing in it was measured.

    python3 tests/golden/report/invent.py > tests/golden/report/results.json
"""

from __future__ import annotations

import json
import random
import statistics
import sys
from hashlib import sha256
from typing import Any

RANDOM = random.Random(7)
N_SETS = 9
LOW = ["top", "trouser", "pullover", "dress", "coat"]
HIGH = ["sandal", "shirt", "sneaker", "bag", "ankle boot"]
EXTENTS = {"full": 1.0, "to 13/20": 1.22, "to 7/20": 1.65, "budget 0.5": 0.5, "budget 1.5": 1.49}
# Model, series, extent, task average, joint or None, stages' images.
MERGED: list[tuple[str, str, str, float, dict[str, int]]] = [
    ("identity", "identity pinv", "full", 0.341, {"recalibrate": 2000}),
    ("permute", "permute pinv", "full", 0.602, {"collect": 5000, "recalibrate": 2000}),
    ("permute refit", "permute refit", "full", 0.899, {"refit": 2000}),
    ("zip, α and β chosen", "zip pinv", "full", 0.811, {"collect": 5000, "recalibrate": 2000}),
    ("zip to 13/20", "zip pinv", "to 13/20", 0.904, {"collect": 5000, "recalibrate": 2000}),
    ("zip to 7/20", "zip pinv", "to 7/20", 0.951, {"collect": 5000, "recalibrate": 2000}),
    ("ward covariance", "ward covariance", "full", 0.842, {"collect": 5000, "recalibrate": 2000}),
    ("ward covariance to 7/20", "ward covariance", "to 7/20", 0.957, {"collect": 5000, "recalibrate": 2000}),
    ("ward refit", "ward refit", "full", 0.9554, {"refit": 2000, "gate": 2000}),
    ("ward refit to 13/20", "ward refit", "to 13/20", 0.9628, {"refit": 2000}),
    ("ward refit to 7/20", "ward refit", "to 7/20", 0.9674, {"refit": 2000}),
    ("ward refit, budget 0.5", "ward refit", "budget 0.5", 0.9429, {"refit": 2000}),
    ("ward refit, budget 1.5", "ward refit", "budget 1.5", 0.9681, {"refit": 2000}),
]


def stat(mean: float, spread: float) -> dict[str, Any]:
    values = [round(min(1.0, RANDOM.gauss(mean, spread)), 4) for _ in range(N_SETS)]
    return {"mean": statistics.fmean(values), "std": statistics.stdev(values), "values": values}


def over(columns: list[dict[str, Any]]) -> dict[str, Any]:
    values = [statistics.fmean(column) for column in zip(*(c["values"] for c in columns), strict=True)]
    return {"mean": statistics.fmean(values), "std": statistics.stdev(values), "values": values}


def classes(tasks: dict[str, list[str]], accuracy: float) -> list[dict[str, Any]]:
    return [
        {"task": task, "class": name, "accuracy": round(max(0.0, accuracy - abs(RANDOM.gauss(0, (1 - accuracy)))), 4)}
        for task, names in tasks.items()
        for name in names
    ]


def row(model: str, kind: str, tasks: dict[str, list[str]], accuracy: float, cost: float, **other: Any) -> dict[str, Any]:
    spread = 0.0012 + 0.05 * (1 - accuracy)
    stats = {task: stat(accuracy, spread) for task in tasks}
    return {
        "model": model, "kind": kind, "series": "", "extent": "", "tasks": stats, "task_avg": over(list(stats.values())),
        "joint": None, "calibrated": None, "gate": None,
        "macs": round(31_234_560 * cost), "relative_macs": cost,
        "params": round(272_186 * cost), "relative_params": cost,
        "images": {}, "labels": kind != "merged", "task_identity": False, "gradients": kind != "merged",
        "classes": classes(tasks, accuracy),
    } | other  # fmt: skip


def case(name: str, x: float, tasks: dict[str, list[str]], worse: float, only: set[str] | None) -> dict[str, Any]:
    n = len(tasks)
    rows = [row(f"{task} alone", "single", {task: names}, 0.9695, 1.0) for task, names in tasks.items()]
    rows.append(row("ensemble", "ensemble", tasks, 0.9695, float(n), joint=stat(0.861, 0.004)))
    for model, series, extent, accuracy, images in MERGED:
        if only and model not in only:
            continue
        cost = {"full": 0.9871}.get(extent, EXTENTS[extent]) if "refit" in model else EXTENTS[extent]
        accuracy = max(0.3, accuracy - worse * (1 - accuracy) * 3)
        made = row(
            model, "merged", tasks, accuracy, cost, series=series, extent=extent, images=images,
            joint=stat(accuracy * 0.87, 0.006), task_identity="gate" in images,
        )  # fmt: skip
        if "gate" in images:
            made["calibrated"], made["gate"] = stat(accuracy * 0.9, 0.004), stat(accuracy * 0.93, 0.004)
        rows.append(made)
    sets = [[f"{task}_seed{1 + (i // 3 if k == 0 else i + k) % 3}" for k, task in enumerate(tasks)] for i in range(N_SETS)]
    return {"name": name, "x": x, "sets": sets, "rows": rows, "choices": [], "shown": None}


def choice() -> dict[str, Any]:
    candidates = []
    for alpha in (0.1, 0.3, 0.5, 0.7, 1.0):
        for beta in (0.0, 0.15, 0.5, 1.0):
            task_avg = 0.55 + 0.28 * beta**0.4 * (1 - 0.6 * abs(alpha - 0.7)) + RANDOM.gauss(0, 0.004)
            candidates.append(
                {"model": f"zip α = {alpha:g}, β = {beta:g}", "alpha": alpha, "beta": beta, "task_avg": round(task_avg, 5)}
            )
    best = max(candidates, key=lambda c: c["task_avg"])["model"]
    return {"name": "zip, α and β chosen", "n_sets": 3, "best": best, "candidates": candidates}


def made(file: str, tool: str, args: list[str], *sources: dict[str, Any]) -> dict[str, Any]:
    return {"file": file, "blake3": sha256(file.encode()).hexdigest(), "tool": tool, "args": args, "from": list(sources)}


def shown() -> dict[str, Any]:
    points = []
    for i in range(19):
        d = 16 if i < 7 else 32 if i < 13 else 64
        across = round(d * (0.92 - 0.02 * i))
        within = round((d - across) * 0.5)
        single = d - across - within
        sizes = {1: single, 2: within + across - across // 4, 3: across // 5, 4: across // 4 - across // 5}
        name = "conv1" if i == 0 else f"layer{1 + (i - 1) // 6}.{(i - 1) % 6 // 2}.{'relu' if i % 2 else 'out'}"
        points.append(
            {
                "name": name, "n_features": 2 * d, "single": single, "within": within, "across": across,
                "sizes": {str(size): n for size, n in sizes.items() if n},
            }
        )  # fmt: skip
    networks = [
        made(f"{task}_seed{seed}.safetensors", "train 0.1.0", ["--classes", split, "--seed", str(seed)])
        for task, seed, split in (("low", 1, "0-4"), ("high", 2, "5-9"))
    ]
    stats = made("stats.h5", "collect 0.1.0", ["--images", "2000"], *networks)
    plan = made("plan.bin", "match 0.1.0", ["--method", "ward"], stats)
    refitted = made("refit.safetensors", "refit 0.1.0", ["--images", "2000"], plan, *networks)
    return {
        "model": "ward refit",
        "networks": ["low_seed1", "high_seed2"],
        "points": points,
        "commands": [
            "target/release/collect low_seed1.safetensors high_seed2.safetensors --data invented/ --images 2000 -o stats.h5",
            "target/release/match stats.h5 -o plan.bin",
            "target/release/refit plan.bin low_seed1.safetensors high_seed2.safetensors --data invented/ --images 2000 "
            "-o refit.safetensors",
        ],
        "chain": refitted,
    }


def main() -> None:
    two = {"low": LOW, "high": HIGH}
    three = {"first": LOW[:3], "second": LOW[3:] + HIGH[:2], "third": HIGH[2:]}
    kept = {"identity", "permute", "permute refit", "ward covariance", "ward refit", "ward refit to 7/20"}
    cases = [case("5 + 5", 2.0, two, 0.0, None), case("3 + 4 + 3", 3.0, three, 0.35, kept)]
    cases[0]["choices"], cases[0]["shown"] = [choice()], shown()
    published = [
        {
            "source": "An invented paper, table 2", "setting": "other data, four times as wide", "model": model,
            "joint": joint, "task_avg": task_avg, "relative_macs": macs,
        }
        for model, joint, task_avg, macs in (
            ("Ensemble", 0.874, 0.979, 2.0), ("Git Re-Basin", 0.312, 0.601, 1.0), ("ZipIt!", None, 0.905, 1.0),
        )
    ]  # fmt: skip
    stages = [("train", 6, 5124.5), ("collect", 18, 312.4), ("match", 96, 71.9), ("apply", 84, 22.1),
              ("recalibrate", 84, 401.7), ("refit", 63, 688.0), ("gate", 9, 44.2), ("eval", 12, 1210.6)]  # fmt: skip
    results = {
        "name": "invented",
        "title": "Invented numbers for tests",
        "about": "Nothing here was measured: the numbers are drawn from a generator, to try the report on.\n\n"
        "Two cases stand for two and for three networks of one architecture, each trained on classes of its own and merged "
        "into one network, nine times.",
        "commit": "0123456789ab+",
        "machine": "an invented processor, 2 cores, Linux",
        "data": [{"name": "invented-fashion", "digest": sha256(b"data").hexdigest(), "split": "test", "n_images": 10000}],
        "axis": "number of networks",
        "joint": True,
        "cases": cases,
        "published": published,
        "time": [{"stage": stage, "n_files": n, "seconds": seconds} for stage, n, seconds in stages],
        "notes": [
            "The same three networks per task stand in several merge sets, so the sets are not independent.",
            "refit needs no BatchNorm reset: it folds BatchNorm away.",
        ],
    }
    json.dump(results, sys.stdout, ensure_ascii=False, separators=(",", ":"), default=str)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
