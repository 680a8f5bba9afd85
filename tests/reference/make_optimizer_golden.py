#!/usr/bin/env python3
"""Golden values of the optimizers and learning-rate schedules.

Writes optimizers.safetensors. Parameters and gradients are float32 numbers stored as float64, so an
engine may start from exactly the same values in either precision; all arithmetic is in float64. The
learning rate changes every step, because with a constant one the two usual conventions of momentum
(learning rate inside or outside the velocity) agree.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.numpy import save_file

SEED = 11
STEPS = 5
SIZES = (7, 33)
LEARNING_RATES = [1e-2, 2e-2, 5e-3, 1.5e-2, 1e-3]
BETAS = (0.9, 0.999)

CASES = {
    "adamw": {"eps": 1e-8, "weight_decay": 0.1, "betas": BETAS},
    "adamw_uncorrected_eps": {"eps": 1e-6, "weight_decay": 0.1, "betas": BETAS},
    "sgd_momentum": {"momentum": 0.9, "weight_decay": 0.01, "nesterov": False},
    "sgd_nesterov": {"momentum": 0.9, "weight_decay": 0.01, "nesterov": True},
}
SCHEDULES = ("linear", "cosine", "constant_with_warmup")
SCHEDULE_STEPS = 20
WARMUP_STEPS = 5


def torch_steps(case: str, initial: np.ndarray, gradients: np.ndarray) -> dict[str, np.ndarray]:
    parameter = torch.nn.Parameter(torch.from_numpy(initial.copy()))
    options = CASES[case]
    if case == "adamw":
        optimizer = torch.optim.AdamW([parameter], **options, foreach=False)
        slots = {"m": "exp_avg", "v": "exp_avg_sq"}
    else:
        optimizer = torch.optim.SGD([parameter], lr=0.0, **options, foreach=False)
        slots = {"velocity": "momentum_buffer"}
    history: dict[str, list[np.ndarray]] = {name: [] for name in ("params", *slots)}
    for learning_rate, gradient in zip(LEARNING_RATES, gradients, strict=True):
        optimizer.param_groups[0]["lr"] = learning_rate
        parameter.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
        history["params"].append(parameter.detach().numpy().copy())
        for name, slot in slots.items():
            history[name].append(optimizer.state[parameter][slot].numpy().copy())
    return {name: np.stack(values) for name, values in history.items()}


def uncorrected_eps_steps(initial: np.ndarray, gradients: np.ndarray) -> dict[str, np.ndarray]:
    """AdamW as SlimFit's language models used it: eps joins sqrt(v) before the bias correction, and
    the decay acts on the already updated weight."""
    options = CASES["adamw_uncorrected_eps"]
    beta1, beta2 = options["betas"]
    weight, m, v = initial.copy(), np.zeros_like(initial), np.zeros_like(initial)
    history: dict[str, list[np.ndarray]] = {"params": [], "m": [], "v": []}
    for step, (learning_rate, gradient) in enumerate(
        zip(LEARNING_RATES, gradients, strict=True), 1
    ):
        m = beta1 * m + (1 - beta1) * gradient
        v = beta2 * v + (1 - beta2) * gradient**2
        rate = learning_rate * math.sqrt(1 - beta2**step) / (1 - beta1**step)
        weight = weight - rate * m / (np.sqrt(v) + options["eps"])
        weight = weight - learning_rate * options["weight_decay"] * weight
        for name, value in (("params", weight), ("m", m), ("v", v)):
            history[name].append(value.copy())
    return {name: np.stack(values) for name, values in history.items()}


def check_uncorrected_eps() -> None:
    """First-step ratios known for this convention: (gradient, |update| / lr)."""
    for gradient, expected in ((1e-5, 0.2403), (1e-4, 0.7597), (1e-3, 0.9693)):
        zeros = np.zeros(1)
        gradients = np.zeros((STEPS, 1))
        gradients[0] = gradient
        first = uncorrected_eps_steps(zeros, gradients)["params"][0, 0]
        # The decay that follows scales the update by 1 - lr * weight_decay.
        decay = 1 - LEARNING_RATES[0] * CASES["adamw_uncorrected_eps"]["weight_decay"]
        ratio = -first / LEARNING_RATES[0] / decay
        assert abs(ratio - expected) < 5e-5, (gradient, ratio, expected)


def schedule_multipliers(name: str) -> np.ndarray:
    """Multiplier that update s uses, s = 0 .. SCHEDULE_STEPS - 1; [SCHEDULE_STEPS]."""
    parameter = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scheduler = transformers.get_scheduler(
        name, optimizer, num_warmup_steps=WARMUP_STEPS, num_training_steps=SCHEDULE_STEPS
    )
    multipliers = []
    for _ in range(SCHEDULE_STEPS):
        multipliers.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return np.array(multipliers, dtype=np.float64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "golden")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    check_uncorrected_eps()

    rng = np.random.default_rng(SEED)
    tensors = {"lr": np.array(LEARNING_RATES)}
    for size in SIZES:
        initial = rng.standard_normal(size).astype(np.float32).astype(np.float64)
        gradients = rng.standard_normal((STEPS, size))
        # Magnitudes from 1e-6 to 1 make the place of eps visible; element 0 never has a gradient.
        gradients *= 10.0 ** rng.uniform(-6, 0, size)
        gradients[:, 0] = 0
        gradients = gradients.astype(np.float32).astype(np.float64)
        tensors[f"n{size}.param"] = initial
        tensors[f"n{size}.grads"] = gradients
        for case in CASES:
            if case == "adamw_uncorrected_eps":
                results = uncorrected_eps_steps(initial, gradients)
            else:
                results = torch_steps(case, initial, gradients)
            for name, value in results.items():
                tensors[f"{case}.n{size}.{name}"] = value
    for name in SCHEDULES:
        tensors[f"schedule.{name}"] = schedule_multipliers(name)

    description = {
        "cases": CASES,
        "sizes": SIZES,
        "steps": STEPS,
        "seed": SEED,
        "schedules": {
            "names": SCHEDULES,
            "training_steps": SCHEDULE_STEPS,
            "warmup_steps": WARMUP_STEPS,
        },
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "numpy": np.__version__,
        },
    }
    target = out / "optimizers.safetensors"
    save_file(tensors, target, metadata={"golden": json.dumps(description, sort_keys=True)})
    print(f"{target}: {len(tensors)} tensors, {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
