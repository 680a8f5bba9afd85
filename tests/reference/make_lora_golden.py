#!/usr/bin/env python3
"""Golden values of a small BERT with LoRA: an adapter folder, logits, loss, gradients, AdamW steps.

Adapts the classifier of make_bert_golden.py (its weights are in bert_small.safetensors) with the PEFT
library. Writes lora_small/, the adapter before training as PEFT saves it, and lora_small.safetensors,
what a run from it gives. Nothing of the adapter starts at zero, so that all its gradients count.
"""

import argparse
import json
import math
import tempfile
from pathlib import Path

import make_bert_golden as bert
import peft
import torch
from safetensors.torch import load_file, save_file

SEED = 20261122
TASK = "classification"
CONFIG = {
    "r": 4,
    "lora_alpha": 6,
    "target_modules": ["query", "value", "output.dense"],
    "bias": "lora_only",
    "task_type": "SEQ_CLS",
}


def make_model(initial, start, dtype: torch.dtype, attention: str):
    base = bert.make_model(TASK, initial, dtype, attention)
    model = peft.get_peft_model(base, peft.LoraConfig(**CONFIG)).to(dtype).train()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and name in start:
            parameter.data.copy_(start[name].to(dtype))
    return model


def start_values(initial, generator: torch.Generator) -> dict[str, torch.Tensor]:
    model = make_model(initial, {}, torch.float32, "eager")
    return {
        name: 0.2 * torch.randn(parameter.shape, generator=generator)
        for name, parameter in sorted(model.named_parameters())
        if ".lora_" in name
    }


def model_name(name: str) -> str:
    """As Lithe's slots are called."""
    for old, new in (
        ("base_model.model.", ""),
        (".default", ""),
        (".modules_to_save", ""),
        (".base_layer", ""),
    ):
        name = name.replace(old, new)
    return name


def run(initial, start, inputs, dtype: torch.dtype, attention: str):
    model = make_model(initial, start, dtype, attention)
    named = [(model_name(n), p) for n, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for n, p in named if bert.decays(n)]},
        {"params": [p for n, p in named if not bert.decays(n)], "weight_decay": 0.0},
    ]
    settings = bert.OPTIMIZER
    optimizer = torch.optim.AdamW(
        groups,
        lr=settings["lr"],
        betas=tuple(settings["betas"]),
        eps=settings["eps"],
        weight_decay=settings["weight_decay"],
        foreach=False,
    )
    values = {}
    losses = []
    for step in range(bert.STEPS):
        logits, loss = bert.forward(model, TASK, inputs, step, dtype)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        losses.append(loss.detach())
        if step == 0:
            values["logits"] = logits.detach().clone()
            for name, parameter in named:
                values[f"grad.{name}"] = parameter.grad.detach().clone()
        optimizer.step()
    values["loss"] = torch.stack(losses)
    for name, parameter in named:
        values[f"final.{name}"] = parameter.detach().clone()
    with torch.no_grad():
        values["final_logits"] = bert.forward(model, TASK, inputs, 0, dtype)[0]
        merged = model.merge_and_unload()
        values["merged_logits"] = bert.forward(merged, TASK, inputs, 0, dtype)[0]
    for name in ("bert.encoder.layer.1.attention.self.value", "bert.encoder.layer.2.output.dense"):
        values[f"merged.{name}.weight"] = merged.get_submodule(name).weight.detach().clone()
    return values


def save_adapter(initial, start, folder: Path) -> None:
    make_model(initial, start, torch.float32, "eager").save_pretrained(folder)
    (folder / "README.md").unlink()
    # A set's order differs from run to run.
    config = json.loads((folder / "adapter_config.json").read_text())
    config["target_modules"] = sorted(config["target_modules"])
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "golden")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(SEED)
    small = load_file(out / "bert_small.safetensors")
    initial = {n.removeprefix("param."): v for n, v in small.items() if n.startswith("param.")}
    inputs = {n.removeprefix("input."): v for n, v in small.items() if n.startswith("input.")}
    start = start_values(initial, torch.Generator().manual_seed(SEED))
    with tempfile.TemporaryDirectory() as folder:
        save_adapter(initial, start, Path(folder))
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            target = out / "lora_small" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((Path(folder) / name).read_bytes())

    values = run(initial, start, inputs, torch.float32, "eager")
    exact = run(initial, start, inputs, torch.float64, "sdpa")
    floor = {}
    for group in ("logits", "loss", "grad", "final", "final_logits", "merged", "merged_logits"):
        errors = [
            bert.relative_error(value, exact[name])
            for name, value in values.items()
            if name.split(".")[0] == group
        ]
        floor[group] = max(errors)
        print(f"|f32 - f64| / |f64| of {group:13} {floor[group]:.2e}")
    gradients = [v.double().norm() ** 2 for n, v in exact.items() if n.startswith("grad.")]
    description = {
        "adapter": CONFIG,
        "optimizer": bert.OPTIMIZER,
        "gradient_norm": math.sqrt(sum(gradients)),
        "noise_floor": floor,
        "versions": {"torch": torch.__version__, "peft": peft.__version__},
    }
    save_file(
        {name: value.contiguous() for name, value in values.items()},
        out / "lora_small.safetensors",
        metadata={"golden": json.dumps(description, sort_keys=True)},
    )
    print(f"loss {values['loss'][0]:.6f} -> {values['loss'][-1]:.6f}, {len(values)} tensors")


if __name__ == "__main__":
    main()
