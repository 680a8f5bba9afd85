#!/usr/bin/env python3
"""Golden values of a small ViT classifier: logits, loss, gradients and ten AdamW steps.

Writes vit_small.safetensors and vit_small_config.json. The model is the Hugging Face
ViTForImageClassification with eager attention in float32. The same run in float64 measures how far
float32 arithmetic alone moves every stored value (the noise floor), which is printed and stored.
README.md beside this script describes the contents.
"""

import argparse
import json
import math
import re
import tempfile
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import ViTConfig, ViTForImageClassification

SEED = 20240607
STEPS = 10
BATCH = 6
OPTIMIZER = {
    "name": "AdamW",
    "lr": 3e-3,
    "betas": [0.9, 0.999],
    "eps": 1e-8,
    "weight_decay": 0.05,
    "decay_rule": "two or more dimensions, but neither position_embeddings nor cls_token",
    "schedule": "constant",
}

# Newer library versions name the modules differently from the checkpoints on the hub.
MODULE_TO_CHECKPOINT = [
    (r"^vit\.layers\.", "vit.encoder.layer."),
    (r"\.attention\.q_proj\.", ".attention.attention.query."),
    (r"\.attention\.k_proj\.", ".attention.attention.key."),
    (r"\.attention\.v_proj\.", ".attention.attention.value."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
]


def checkpoint_name(module_name: str) -> str:
    for pattern, replacement in MODULE_TO_CHECKPOINT:
        module_name = re.sub(pattern, replacement, module_name)
    return module_name


def expected_names(config: ViTConfig) -> set[str]:
    """The names of a published checkpoint such as google/vit-base-patch16-224."""
    embeddings = ["cls_token", "position_embeddings"]
    embeddings += [f"patch_embeddings.projection.{kind}" for kind in ("weight", "bias")]
    modules = ["attention.attention.query", "attention.attention.key", "attention.attention.value"]
    modules += ["attention.output.dense", "intermediate.dense", "output.dense"]
    modules += ["layernorm_before", "layernorm_after"]
    names = {f"vit.embeddings.{name}" for name in embeddings}
    for kind in ("weight", "bias"):
        for layer in range(config.num_hidden_layers):
            names |= {f"vit.encoder.layer.{layer}.{module}.{kind}" for module in modules}
        names |= {f"vit.layernorm.{kind}", f"classifier.{kind}"}
    return names


def make_config() -> ViTConfig:
    return ViTConfig(
        image_size=12,
        patch_size=4,
        num_channels=3,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        num_labels=5,
        hidden_act="gelu",
        qkv_bias=True,
        layer_norm_eps=1e-12,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


def is_norm_scale(name: str) -> bool:
    return "layernorm" in name and name.endswith(".weight")


def initial_parameters(
    model: torch.nn.Module, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """Nothing is left at zero or one: a forgotten bias or embedding must show."""
    parameters = {}
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
        parameters[name] = 1 + 0.1 * noise if is_norm_scale(name) else 0.2 * noise
    return parameters


def decays(name: str, parameter: torch.Tensor) -> bool:
    excluded = name.endswith("position_embeddings") or name.endswith("cls_token")
    return parameter.ndim >= 2 and not excluded


def run(initial, pixels, labels, dtype: torch.dtype, attention: str) -> dict[str, torch.Tensor]:
    config = make_config()
    config._attn_implementation = attention
    model = ViTForImageClassification(config).to(dtype).train()
    model.load_state_dict({name: value.to(dtype) for name, value in initial.items()})
    named = list(model.named_parameters())
    groups = [
        {
            "params": [p for n, p in named if decays(n, p)],
            "weight_decay": OPTIMIZER["weight_decay"],
        },
        {"params": [p for n, p in named if not decays(n, p)], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        groups,
        lr=OPTIMIZER["lr"],
        betas=tuple(OPTIMIZER["betas"]),
        eps=OPTIMIZER["eps"],
        foreach=False,
    )
    values = {}
    losses = []
    for step in range(STEPS):
        output = model(
            pixel_values=pixels[step].permute(0, 3, 1, 2).contiguous().to(dtype),
            labels=labels[step],
        )
        optimizer.zero_grad(set_to_none=True)
        output.loss.backward()
        losses.append(output.loss.detach())
        if step == 0:
            values["logits"] = output.logits.detach().clone()
            for name, parameter in named:
                values[f"grad.{checkpoint_name(name)}"] = parameter.grad.detach().clone()
        optimizer.step()
    values["loss"] = torch.stack(losses)
    for name, parameter in named:
        values[f"final.{checkpoint_name(name)}"] = parameter.detach().clone()
    with torch.no_grad():
        values["final_logits"] = model(
            pixel_values=pixels[0].permute(0, 3, 1, 2).contiguous().to(dtype)
        ).logits.clone()
    return values


def bf16_logits(initial, pixels) -> dict[str, torch.Tensor]:
    """Of all batches with the initial weights, in float32 and by the model converted to bfloat16:
    how far a 16-bit stream moves them."""
    values = {}
    for name, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16)):
        config = make_config()
        config._attn_implementation = "eager"
        model = ViTForImageClassification(config).to(dtype).train()
        model.load_state_dict({name: value.to(dtype) for name, value in initial.items()})
        images = pixels.permute(0, 1, 4, 2, 3).contiguous().to(dtype)
        with torch.no_grad():
            batches = [model(pixel_values=batch).logits.float() for batch in images]
        values[f"initial_logits.{name}"] = torch.stack(batches)
    return values


def relative_error(value: torch.Tensor, reference: torch.Tensor) -> float:
    return (torch.linalg.norm(value.double() - reference) / torch.linalg.norm(reference)).item()


def check_names(initial: dict[str, torch.Tensor]) -> None:
    """The renaming above is compared with what the library itself writes and reads."""
    config = make_config()
    model = ViTForImageClassification(config)
    model.load_state_dict(initial)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        saved = load_file(f"{folder}/model.safetensors")
        renamed = {checkpoint_name(name): value for name, value in initial.items()}
        if set(renamed) != expected_names(config):
            raise SystemExit(f"unexpected names: {set(renamed) ^ expected_names(config)}")
        print(f"save_pretrained writes the checkpoint names: {set(saved) == set(renamed)}")
        if set(saved) == set(renamed):
            assert all(torch.equal(saved[name], renamed[name]) for name in saved)
        save_file(renamed, f"{folder}/model.safetensors", metadata={"format": "pt"})
        loaded = ViTForImageClassification.from_pretrained(folder).state_dict()
        same = all(torch.equal(loaded[name], initial[name]) for name in initial)
        print(f"from_pretrained reads the checkpoint names: {same}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "golden")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    # One thread: the order of every sum is then the same on each run.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    transformers.utils.logging.disable_progress_bar()

    config = make_config()
    generator = torch.Generator().manual_seed(SEED)
    initial = initial_parameters(ViTForImageClassification(config), generator)
    shape = (STEPS, BATCH, config.image_size, config.image_size, config.num_channels)
    pixels = torch.randn(shape, generator=generator, dtype=torch.float32)
    labels = torch.randint(config.num_labels, (STEPS, BATCH), generator=generator)
    check_names(initial)

    values = run(initial, pixels, labels, torch.float32, "eager")
    # The eager path casts its softmax to float32 whatever the dtype; sdpa stays in float64.
    exact = run(initial, pixels, labels, torch.float64, "sdpa")

    # A key bias shifts all scores of a query alike, so its true gradient is zero and Adam turns
    # rounding errors into updates: neither its gradient nor its final value means anything.
    undetermined = sorted(
        n for n in map(checkpoint_name, initial) if n.endswith("attention.key.bias")
    )
    noise = {name: relative_error(value, exact[name]) for name, value in values.items()}
    print(f"loss {values['loss'][0]:.6f} -> {values['loss'][-1]:.6f} over {STEPS} steps")
    print("largest relative error |f32 - f64| / |f64| by group:")
    floor = {}
    for group in ("logits", "loss", "final_logits", "grad", "final"):
        members = {
            name: error
            for name, error in noise.items()
            if name.split(".")[0] == group and name.split(".", 1)[-1] not in undetermined
        }
        worst = max(members, key=members.get)
        floor[group] = members[worst]
        print(f"  {group:13} {members[worst]:.2e}  ({worst})")
    all_gradients = math.sqrt(
        sum(v.double().norm() ** 2 for n, v in exact.items() if n.startswith("grad."))
    )
    for name in undetermined:
        gradient = values[f"grad.{name}"].double().norm().item()
        moved = (values[f"final.{name}"].double() - exact[f"final.{name}"]).abs().max().item()
        print(
            f"  undetermined {name}: |grad| / |all grads| {gradient / all_gradients:.1e},"
            f" final differs by up to {moved:.1e}"
        )

    tensors = {f"param.{checkpoint_name(name)}": value for name, value in initial.items()}
    tensors |= {"input.pixels": pixels, "input.labels": labels} | values
    tensors |= bf16_logits(initial, pixels)
    description = {
        "config": json.loads(config.to_json_string(use_diff=False)),
        "optimizer": OPTIMIZER,
        "steps": STEPS,
        "batch": BATCH,
        "seed": SEED,
        "decayed": sorted(checkpoint_name(n) for n, p in initial.items() if decays(n, p)),
        "undetermined": undetermined,
        "gradient_norm": all_gradients,
        "noise_floor": floor,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    target = out / "vit_small.safetensors"
    # A single metadata key: with several, their order in the file would not be fixed.
    save_file(
        {name: value.contiguous() for name, value in tensors.items()},
        target,
        metadata={"golden": json.dumps(description, sort_keys=True)},
    )
    config.architectures = ["ViTForImageClassification"]
    config.to_json_file(out / "vit_small_config.json")
    print(f"{target}: {len(tensors)} tensors, {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
