#!/usr/bin/env python3
"""Loads an adapter that Lithe wrote with the PEFT library, unchanged.

check_adapter.py FOLDER: as tests/train/test_lora_runs.cpp leaves it, run with
LITHE_EXPORT=FOLDER build/bin/test_train -tc='a run writes a PEFT folder*'. base/ is the model that was
adapted, adapter/ the PEFT folder, merged/ the model with the adapter folded in, values.safetensors the
inputs and the logits that Lithe computed with the adapter. A tensor that is missing or unexpected, other
logits and other merged weights are errors.
"""

import argparse
from pathlib import Path

import peft
import torch
import transformers
from check_export import TOLERANCE, compute_logits
from safetensors.torch import load_file


def load_base(folder: Path):
    model = transformers.AutoModelForSequenceClassification
    return model.from_pretrained(folder).eval()


def check(what: str, value: torch.Tensor, wanted: torch.Tensor, limit: float = TOLERANCE) -> None:
    error = ((value - wanted).norm() / wanted.norm()).item()
    print(f"{what}: differ by {error:.2e}")
    if not error < limit:
        raise SystemExit(f"{what}: differ by {error:.2e}, at most {limit} is accepted")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    values = load_file(folder / "values.safetensors")
    written = load_file(folder / "adapter" / "adapter_model.safetensors")
    with torch.no_grad():
        base_logits = compute_logits(load_base(folder / "base"), values)
        model = peft.PeftModel.from_pretrained(load_base(folder / "base"), folder / "adapter").eval()
        # PEFT passes over what does not fit: the tensors that it would save must be those written.
        loaded = peft.get_peft_model_state_dict(model)
        if set(loaded) != set(written):
            raise SystemExit(f"PEFT has other tensors: {set(loaded) ^ set(written)}")
        for name, value in written.items():
            if not torch.equal(loaded[name], value):
                raise SystemExit(f"'{name}' was not loaded")
        logits = compute_logits(model, values)
        distance = ((base_logits - values["logits"]).norm() / values["logits"].norm()).item()
        if distance < 0.01:
            raise SystemExit(f"the base's own logits are as near as {distance:.2e}: no test")
        print(f"{len(written)} tensors; the base's own logits differ by {distance:.2e}")
        check("logits with the adapter", logits, values["logits"])
        merged = model.merge_and_unload()
        check("logits of PEFT's merged model", compute_logits(merged, values), values["logits"])
        ours = load_base(folder / "merged")
        check("logits of Lithe's merged model", compute_logits(ours, values), values["logits"])
        wanted = merged.state_dict()
        for name, value in ours.state_dict().items():
            if value.is_floating_point():
                error = (value - wanted[name]).abs().max().item()
                if error > 1e-6:
                    raise SystemExit(f"'{name}' is off by {error:.2e} from PEFT's merged weight")
        print(f"{len(wanted)} merged tensors agree")


if __name__ == "__main__":
    main()
