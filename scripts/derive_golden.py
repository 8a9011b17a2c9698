"""An independent derivation of collect + match (zip) + apply on a tiny ResNet-20, in PyTorch and NumPy.

Written from the paper and DESIGN alone, with dense matrices, f64 and a hand-written list of ResNet-20's feature spaces,
so that it shares no idea with the Rust code but the maths. Makes tests/golden/tiny_resnet20/:

    a.pt b.pt                two networks (random weights, BatchNorm statistics of the images)
    data/                    IDX images and labels
    expected.json            per case and merge point: the assignment, and the smallest margin of any greedy choice
    CASE.safetensors         per case: the merged network's weights

Usage: .venv-python/bin/python scripts/derive_golden.py
"""

import json
import pathlib
import struct

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

OUT = pathlib.Path(__file__).parent.parent / "tests/golden/tiny_resnet20"
BASE, N_IMAGES, SIZE, CLASSES = 4, 240, 12, 3
MEAN, STD = 0.4, 0.3
CASES = {
    "full_pinv": dict(alpha=0.3, beta=0.5, stages=3, unmerge="pinv"),
    "full_covariance": dict(alpha=1.0, beta=1.0, stages=3, unmerge="covariance", ridge=0.01),
    "stage1_pinv": dict(alpha=0.01, beta=0.15, stages=1, unmerge="pinv"),
    "stage2_covariance": dict(alpha=0.7, beta=0.0, stages=2, unmerge="covariance", ridge=0.001),
}


def blocks():
    for stage in (1, 2, 3):
        for block in (0, 1, 2):
            yield stage, block, f"layer{stage}.{block}"


def random_state_dict(seed):
    g = torch.Generator().manual_seed(seed)
    sd = {}

    def conv(name, o, i, k):
        sd[f"{name}.weight"] = torch.randn(o, i, k, k, generator=g) * (2 / (i * k * k)) ** 0.5

    def bn(name, c):
        sd[f"{name}.weight"] = 0.5 + torch.rand(c, generator=g)
        sd[f"{name}.bias"] = 0.3 * torch.randn(c, generator=g)
        sd[f"{name}.running_mean"] = torch.zeros(c)
        sd[f"{name}.running_var"] = torch.ones(c)
        sd[f"{name}.num_batches_tracked"] = torch.tensor(7)

    conv("conv1", BASE, 1, 3)
    bn("bn1", BASE)
    width = BASE
    for stage, block, name in blocks():
        out = BASE * 2 ** (stage - 1)
        conv(f"{name}.conv1", out, width, 3)
        bn(f"{name}.bn1", out)
        conv(f"{name}.conv2", out, out, 3)
        bn(f"{name}.bn2", out)
        if out != width:
            conv(f"{name}.shortcut.0", out, width, 1)
            bn(f"{name}.shortcut.1", out)
        width = out
    sd["linear.weight"] = torch.randn(CLASSES, width, generator=g) * width**-0.5
    sd["linear.bias"] = 0.1 * torch.randn(CLASSES, generator=g)
    return sd


def forward(sd, x, observe, calibrate=False):
    """Logits in f64; `observe[name]` receives the value of each feature space."""

    def bn(name, x):
        if calibrate:
            sd[f"{name}.running_mean"] = x.mean((0, 2, 3)).float()
            sd[f"{name}.running_var"] = x.var((0, 2, 3)).float()
        p = [sd[f"{name}.{k}"].double() for k in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *p, eps=1e-5)

    def conv(name, x, stride=1):
        w = sd[f"{name}.weight"].double()
        return F.conv2d(x, w, stride=stride, padding=w.shape[2] // 2)

    x = F.relu(bn("bn1", conv("conv1", x)))
    for stage, block, name in blocks():
        stride = 2 if stage > 1 and block == 0 else 1
        y = F.relu(bn(f"{name}.bn1", conv(f"{name}.conv1", x, stride)))
        observe[f"{name}.relu"] = y
        y = bn(f"{name}.bn2", conv(f"{name}.conv2", y))
        if f"{name}.shortcut.0.weight" in sd:
            x = bn(f"{name}.shortcut.1", conv(f"{name}.shortcut.0", x, stride))
        x = F.relu(y + x)
        if block == 2:
            observe[f"{name}.relu_1"] = x
    x = x.mean((2, 3))
    return F.linear(x, sd["linear.weight"].double(), sd["linear.bias"].double())


def greedy_zip(similarity, d, n_models, alpha, beta):
    """The greedy matching by sets: nothing clever. Returns the assignment and the smallest margin of a choice."""
    n = len(similarity)
    s = similarity.astype(np.float32).copy()
    groups = {i: [i] for i in range(n)}
    removals = n - d
    cap = 0 if beta == 0 else max(1, int(np.floor(removals / n_models * beta)))
    spent = [0] * n_models
    margin = np.inf

    def allowed(i, j):
        a, b = groups[i], groups[j]
        if alpha <= 0 and (len(a) > 1 or len(b) > 1) and {k // d for k in a} & {k // d for k in b}:
            return False
        return i // d != j // d or spent[i // d] < cap

    while len(groups) > d:
        pairs = [(s[i, j], i, j) for i in groups for j in groups if i < j and allowed(i, j)]
        assert pairs, "this derivation does not lift caps"
        pairs.sort(key=lambda p: (-p[0], p[1], p[2]))
        best, i, j = pairs[0]
        margin = min(margin, best - pairs[1][0]) if len(pairs) > 1 else margin
        if i // d == j // d:
            spent[i // d] += 1
        row = np.minimum(s[i], s[j]) * np.float32(alpha)
        s[i, :] = row
        s[:, i] = row
        groups[i] = sorted(groups[i] + groups.pop(j))
    assignment = np.zeros(n, dtype=int)
    for g, members in enumerate(sorted(groups.values())):
        assignment[members] = g
    return assignment, float(margin)


def maps(second_moment, assignment, d, case):
    n = len(assignment)
    indicator = np.zeros((n, d))
    indicator[np.arange(n), assignment] = 1
    merge = (indicator / indicator.sum(0)).T
    if case["unmerge"] == "pinv":
        return merge, indicator
    g = merge @ second_moment @ merge.T
    ridge = case["ridge"] * np.mean(np.diag(g)) * np.eye(d)
    rest = second_moment @ merge.T - indicator @ g
    return merge, indicator + rest @ np.linalg.inv(g + ridge)


def apply(models, spaces):
    """The merged state dict; `spaces[name] = (merge, unmerge)` for merged spaces, by the dense definition."""
    merged = {}
    n = len(models)

    def part(space, i, which):
        if space == "input":
            return np.eye(1)
        m, u = spaces[space]
        d = m.shape[1] // n
        return m[:, i * d : (i + 1) * d] if which == "M" else u[i * d : (i + 1) * d]

    def put(name, tensors):
        merged[name] = np.ascontiguousarray(tensors, dtype=np.float32)

    def weight(name, source, target, linear=False):
        outs = []
        for i, sd in enumerate(models):
            w = sd[f"{name}.weight"].double().numpy()
            if source == "input" or source in spaces:
                w = np.einsum("oi...,ic->oc...", w, part(source, i, "U"))
            if target in spaces:
                w = np.einsum("go,oc...->gc...", part(target, i, "M"), w)
            outs.append(w)
        source_once = source == "input" or source in spaces
        if source_once and target in spaces:
            put(f"{name}.weight", sum(outs))
        else:
            assert target not in spaces, "a stop-at case never goes back into a merged space"
            for i, w in enumerate(outs):
                put(f"models.{i}.{name}.weight", w)

    def vectors(name, space, keys):
        for key in keys:
            v = [sd[f"{name}.{key}"].double().numpy() for sd in models]
            if space in spaces:
                put(f"{name}.{key}", sum(part(space, i, "M") @ v[i] for i in range(n)))
            else:
                for i in range(n):
                    put(f"models.{i}.{name}.{key}", v[i])

    bn = ("weight", "bias", "running_mean", "running_var")
    weight("conv1", "input", "layer1.2.relu_1")
    vectors("bn1", "layer1.2.relu_1", bn)
    stream = "layer1.2.relu_1"
    for stage, block, name in blocks():
        inner, target = f"{name}.relu", f"layer{stage}.2.relu_1"
        weight(f"{name}.conv1", stream, inner)
        vectors(f"{name}.bn1", inner, bn)
        weight(f"{name}.conv2", inner, target)
        vectors(f"{name}.bn2", target, bn)
        if f"{name}.shortcut.0.weight" in models[0]:
            weight(f"{name}.shortcut.0", stream, target)
            vectors(f"{name}.shortcut.1", target, bn)
        stream = target
    weight("linear", stream, "logits")
    vectors("linear", "logits", ("bias",))
    return merged


def write_idx(path, array):
    with open(path, "wb") as f:
        f.write(struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape))
        f.write(array.astype(np.uint8).tobytes())


def main():
    torch.set_grad_enabled(False)
    rng = np.random.default_rng(5)
    (OUT / "data").mkdir(parents=True, exist_ok=True)
    # Smooth blobs: neighbouring pixels correlate, as in real images.
    noise = torch.tensor(rng.normal(size=(N_IMAGES, 1, 5, 5)))
    images = F.interpolate(noise, SIZE, mode="bicubic").squeeze(1).numpy()
    images = np.clip(110 + 70 * images, 0, 255).astype(np.uint8)
    labels = rng.integers(0, 2 * CLASSES, N_IMAGES)
    write_idx(OUT / "data/train-images-idx3-ubyte", images)
    write_idx(OUT / "data/train-labels-idx1-ubyte", labels)
    write_idx(OUT / "data/t10k-images-idx3-ubyte", images[:60])
    write_idx(OUT / "data/t10k-labels-idx1-ubyte", labels[:60])
    # The training part without every tenth image, which is the validation part.
    train = images[np.arange(N_IMAGES) % 10 != 9]
    x = ((torch.tensor(train).double() / 255 - MEAN) / STD).unsqueeze(1)

    models, features = [], []
    for seed, name in ((11, "a"), (12, "b")):
        sd = random_state_dict(seed)
        forward(sd, x, {}, calibrate=True)
        observed = {}
        forward(sd, x, observed)
        models.append(sd)
        features.append(observed)
        torch.save({"epoch": 3, "state_dict": sd}, OUT / f"{name}.pt")

    expected = {}
    for case_name, case in CASES.items():
        spaces, points = {}, {}
        for point in features[0]:
            if int(point[5]) > case["stages"]:
                continue
            z = np.concatenate([f[point].permute(1, 0, 2, 3).flatten(1).numpy() for f in features])
            d = len(z) // 2
            covariance = np.cov(z, bias=True)
            scale = np.sqrt(np.diag(covariance))
            scale = np.where(scale > 0, 1 / np.maximum(scale, 1e-30), 0)
            assignment, margin = greedy_zip(covariance * scale[:, None] * scale, d, 2, case["alpha"], case["beta"])
            spaces[point] = maps(z @ z.T / z.shape[1], assignment, d, case)
            points[point] = dict(assignment=assignment.tolist(), margin=margin)
        save_file(apply(models, spaces), OUT / f"{case_name}.safetensors")
        expected[case_name] = dict(settings=case, points=points)
        print(case_name, "smallest margin", min(p["margin"] for p in points.values()))
    (OUT / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


main()
