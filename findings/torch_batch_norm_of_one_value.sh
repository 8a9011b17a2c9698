#!/usr/bin/env bash
# BatchNorm in training mode on a single value per channel.
#
# A good engineer knows that PyTorch refuses it: "Expected more than 1 value per channel when training". But it is
# torch.nn.functional that refuses, in Python. The operator below it, which LibTorch, a traced module and an exported program
# call, takes the value, answers with the bias, and divides the variance by n - 1 = 0: running_var is NaN from then on, whatever
# comes later, and the network says NaN as soon as it is evaluated. Nothing raises. So a training loop that is correct in Python
# (a last batch of one image, maps of one position) loses its network where the same module was traced or exported before.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" --quiet --disable-pip-version-check install numpy==2.3.5 torch==2.11.0
cat > "$folder/one.py" <<'PYTHON'
import torch
from torch import nn

torch.manual_seed(0)


def network():
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(2)).train()


several, one = torch.randn(4, 2, 3, 3), torch.randn(1, 2, 3, 3)
print(f"torch {torch.__version__}")
try:
    network()(one)
    refused = "nothing"
except ValueError as error:
    refused = str(error)
print("the module:", refused)
assert "more than 1 value per channel" in refused

weight, bias, mean, var = torch.full((2,), 2.0), torch.tensor([0.5, -1.0]), torch.zeros(2), torch.ones(2)
out = torch.batch_norm(one.mean((2, 3)), weight, bias, mean, var, True, 0.1, 1e-5, False)
print("the operator:", out.tolist(), "running_var", var.tolist())
assert torch.allclose(out, bias, atol=1e-3) and var.isnan().all() and mean.isfinite().all()

dynamic = ({0: torch.export.Dim.DYNAMIC},)
for name, make in [
    ("traced", lambda module: torch.jit.trace(module, several)),
    ("exported", lambda module: torch.export.export(module, (several,), dynamic_shapes=dynamic).module()),
]:
    module = network()
    program = make(module)
    for images in [several, one, several, several]:
        program(images)
    state = program.state_dict()
    evaluated = network().eval()
    evaluated.load_state_dict(state)
    answer = evaluated(several)
    print(f"{name}: running_var {state['1.running_var'].tolist()}, evaluated {answer.flatten()[:2].tolist()}")
    assert state["1.running_var"].isnan().all() and state["1.running_mean"].isfinite().all() and answer.isnan().all()
PYTHON
"$folder/env/bin/python" -W ignore "$folder/one.py"
echo "as described"
