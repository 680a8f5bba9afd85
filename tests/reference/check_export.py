#!/usr/bin/env python3
"""Loads a model folder that Lithe wrote with the Hugging Face library, unchanged.

check_export.py FOLDER [VALUES]: the architecture is read from config.json; a weight that is missing,
unexpected or of another shape is an error. VALUES is a safetensors file with input_ids,
token_type_ids, attention_mask (or pixels) and the logits that Lithe computed.
"""

import argparse
import json
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file

TOLERANCE = 1e-4  # relative, fp32
CLASSES = {
    "BertForSequenceClassification": transformers.AutoModelForSequenceClassification,
    "BertForQuestionAnswering": transformers.AutoModelForQuestionAnswering,
    "ViTForImageClassification": transformers.AutoModelForImageClassification,
}


def compute_logits(model, values) -> torch.Tensor:
    """As Lithe lays them out: spans [2, B, T]."""
    if "pixels" in values:
        return model(pixel_values=values["pixels"].permute(0, 3, 1, 2)).logits
    output = model(
        input_ids=values["input_ids"],
        token_type_ids=values["token_type_ids"],
        attention_mask=values["attention_mask"].long(),
    )
    if hasattr(output, "start_logits"):
        return torch.stack([output.start_logits, output.end_logits])
    return output.logits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("values", type=Path, nargs="?")
    args = parser.parse_args()
    config = json.loads((args.folder / "config.json").read_text())
    architecture = config["architectures"][0]
    model, loading = CLASSES[architecture].from_pretrained(args.folder, output_loading_info=True)
    for kind, names in loading.items():
        if names:
            raise SystemExit(f"{args.folder}: {kind}: {names}")
    if type(model).__name__ != architecture:
        raise SystemExit(f"{args.folder}: loads as {type(model).__name__}, wanted {architecture}")
    labels = {int(i): name for i, name in config["id2label"].items()}
    if model.config.id2label != labels:
        raise SystemExit(f"{args.folder}: labels {model.config.id2label}, written {labels}")
    print(f"{args.folder}: {architecture}, {len(model.state_dict())} tensors, labels {labels}")
    if args.values is None:
        return
    values = load_file(args.values)
    with torch.no_grad():
        logits = compute_logits(model.eval(), values)
    wanted = values["logits"]
    if logits.shape != wanted.shape:
        raise SystemExit(f"logits {tuple(logits.shape)}, written {tuple(wanted.shape)}")
    error = ((logits - wanted).norm() / logits.norm()).item()
    print(f"{args.values}: logits {tuple(wanted.shape)} differ by {error:.2e}")
    if not error < TOLERANCE:
        raise SystemExit(f"logits differ by {error:.2e}, at most {TOLERANCE} is accepted")


if __name__ == "__main__":
    main()
