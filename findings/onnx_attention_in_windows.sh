#!/usr/bin/env bash
# Attention in windows, queries `[batch, windows, heads, tokens, features]`, from PyTorch to ONNX.
#
# A good engineer would guess that what `torch.export` and ATen take, `torch.onnx.export(dynamo=True)` writes: PyTorch
# documents `scaled_dot_product_attention` for any number of leading axes. The exporter's translation knows four axes and
# stops with an assertion on five, though folding the windows into the batch gives the same numbers and is written at once.
# So window attention (Swin, MaxViT) that is spelled with an axis of its own for the windows runs and traces, and fails last.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" --quiet --disable-pip-version-check install \
    numpy==2.3.5 torch==2.11.0 onnx==1.23.2 onnxscript==0.7.2
"$folder/env/bin/python" -W ignore - <<'PYTHON'
import logging

import torch
import torch.nn.functional as F

logging.disable(logging.WARNING)
print("torch", torch.__version__)


class Attention(torch.nn.Module):
    def forward(self, x):
        return F.scaled_dot_product_attention(x, x, x)


def write(x):
    try:
        torch.onnx.export(Attention().eval(), (x,), dynamo=True, verbose=False)
    except Exception as error:
        while error.__cause__ is not None:
            error = error.__cause__
        return f"{type(error).__name__}: {error}"
    return "written"


windows = torch.randn(2, 5, 3, 8, 4)
folded = windows.flatten(0, 1)
torch.testing.assert_close(Attention()(windows).flatten(0, 1), Attention()(folded))
torch.export.export(Attention(), (windows,))
said = {"windows an axis of their own": write(windows), "windows in the batch": write(folded)}
for what, answer in said.items():
    print(f"{what}: {answer}")
assert said["windows in the batch"] == "written" and "only 4D" in said["windows an axis of their own"]
PYTHON
echo "as described"
