#!/usr/bin/env python3
"""Golden values of small BERTs: logits, loss, gradients and AdamW steps of three tasks.

Writes bert_small.safetensors (weights of encoder and heads, inputs, configurations) and, for each
task, bert_<task>.safetensors. The models are the Hugging Face BertForSequenceClassification (three
labels, and one label for regression) and BertForQuestionAnswering with eager attention in float32.
The same run in float64 measures how far float32 arithmetic alone moves every stored value (the
noise floor), and the model converted to bfloat16 how far a 16-bit stream moves the logits.
README.md beside this script describes the contents.
"""

import argparse
import json
import math
import tempfile
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForQuestionAnswering, BertForSequenceClassification

SEED = 20240611
STEPS = 10
BATCH = 6
TOKENS = 12
TASKS = {
    "classification": (BertForSequenceClassification, 3, STEPS),
    "regression": (BertForSequenceClassification, 1, 1),
    "span": (BertForQuestionAnswering, 2, STEPS),
}
OPTIMIZER = {
    "name": "AdamW",
    "lr": 2e-3,
    "betas": [0.9, 0.999],
    "eps": 1e-6,
    "weight_decay": 0.05,
    "decay_rule": "all but biases and LayerNorm scales",
    "schedule": "constant",
}


def make_config(task: str) -> BertConfig:
    model, labels, _ = TASKS[task]
    names = ["contradiction", "neutral", "entailment"] if labels == 3 else None
    config = BertConfig(
        vocab_size=60,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=14,
        type_vocab_size=2,
        hidden_act="gelu",
        layer_norm_eps=1e-12,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_labels=labels,
    )
    if names:
        config.id2label = dict(enumerate(names))
        config.label2id = {name: i for i, name in enumerate(names)}
    config.architectures = [model.__name__]
    return config


def stored_name(task: str, name: str) -> str:
    """The heads of the tasks get names of their own in the shared file."""
    return f"{task}.{name}" if name.startswith(("classifier.", "qa_outputs.")) else name


def initial_parameters(generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Nothing is left at zero or one: a forgotten bias or embedding must show."""
    shapes = {}
    for task, (model, _, _) in TASKS.items():
        for name, parameter in model(make_config(task)).named_parameters():
            shapes[stored_name(task, name)] = parameter.shape
    parameters = {}
    for name, shape in sorted(shapes.items()):
        noise = torch.randn(shape, generator=generator, dtype=torch.float32)
        parameters[name] = 1 + 0.1 * noise if name.endswith("LayerNorm.weight") else 0.2 * noise
    return parameters


def make_inputs(generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Texts of many lengths: padded behind (most), padded in front (row 1), full (row 0)."""
    config = make_config("classification")
    ids = torch.randint(1, config.vocab_size, (STEPS, BATCH, TOKENS), generator=generator)
    lengths = torch.randint(3, TOKENS + 1, (STEPS, BATCH), generator=generator)
    lengths[:, 0] = TOKENS
    lengths[:, 1] = torch.clamp(lengths[:, 1], max=TOKENS - 2)
    place = torch.arange(TOKENS).expand(STEPS, BATCH, TOKENS)
    mask = place < lengths[..., None]
    mask[:, 1] = place[:, 1] >= TOKENS - lengths[:, 1, None]
    ids = torch.where(mask, ids, config.pad_token_id)
    types = ((place >= (lengths // 2)[..., None]) & mask).long()
    scores = torch.rand((STEPS, BATCH, TOKENS), generator=generator)
    first = torch.where(mask, scores, -1.0).argmax(-1)
    last = torch.where(mask & (place >= first[..., None]), scores.flip(-1), -1.0).argmax(-1)
    return {
        "input_ids": ids,
        "token_type_ids": types,
        "attention_mask": mask,
        "labels.classification": torch.randint(3, (STEPS, BATCH), generator=generator),
        "labels.regression": torch.randn((STEPS, BATCH), generator=generator),
        "labels.span": torch.stack([first, last], 1),
    }


def decays(name: str) -> bool:
    return not (name.endswith(".bias") or name.endswith("LayerNorm.weight"))


def make_model(task: str, initial, dtype: torch.dtype, attention: str):
    config = make_config(task)
    config._attn_implementation = attention
    model = TASKS[task][0](config).to(dtype).train()
    state = {n: initial[stored_name(task, n)].to(dtype) for n, _ in model.named_parameters()}
    missing = model.load_state_dict(state, strict=False)
    if any(not name.endswith(("position_ids", "token_type_ids")) for name in missing.missing_keys):
        raise SystemExit(f"not in the initial values: {missing.missing_keys}")
    return model


def forward(model, task: str, inputs, step: int, dtype: torch.dtype):
    """Logits as Lithe lays them out (span: [2, B, T]) and the loss."""
    labels = inputs[f"labels.{task}"][step]
    if task == "span":
        targets = {"start_positions": labels[0], "end_positions": labels[1]}
    else:
        targets = {"labels": labels.to(dtype) if task == "regression" else labels}
    output = model(
        input_ids=inputs["input_ids"][step],
        token_type_ids=inputs["token_type_ids"][step],
        attention_mask=inputs["attention_mask"][step].long(),
        **targets,
    )
    if task == "span":
        return torch.stack([output.start_logits, output.end_logits]), output.loss
    return output.logits, output.loss


def run(task: str, initial, inputs, dtype: torch.dtype, attention: str):
    model = make_model(task, initial, dtype, attention)
    steps = TASKS[task][2]
    named = list(model.named_parameters())
    groups = [
        {"params": [p for n, p in named if decays(n)], "weight_decay": OPTIMIZER["weight_decay"]},
        {"params": [p for n, p in named if not decays(n)], "weight_decay": 0.0},
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
    for step in range(steps):
        logits, loss = forward(model, task, inputs, step, dtype)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        losses.append(loss.detach())
        if step == 0:
            values["logits"] = logits.detach().clone()
            for name, parameter in named:
                values[f"grad.{name}"] = parameter.grad.detach().clone()
        if steps > 1:
            optimizer.step()
    values["loss"] = torch.stack(losses)
    if steps > 1:
        for name, parameter in named:
            values[f"final.{name}"] = parameter.detach().clone()
    return values


def relative_error(value: torch.Tensor, reference: torch.Tensor) -> float:
    scale = torch.linalg.norm(reference.double()).item()
    error = torch.linalg.norm(value.double() - reference.double()).item()
    return error / scale if scale > 0 else error


def all_gradients(task: str, initial, inputs, dtype: torch.dtype) -> torch.Tensor:
    """The gradients of step 0 as one vector."""
    model = make_model(task, initial, dtype, "eager")
    forward(model, task, inputs, 0, dtype)[1].backward()
    return torch.cat([p.grad.double().flatten() for p in model.parameters()])


def check_names(task: str, initial) -> None:
    """The names stored are those that the library writes and reads."""
    model = make_model(task, initial, torch.float32, "eager")
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        saved = load_file(f"{folder}/model.safetensors")
    wanted = {name: initial[stored_name(task, name)] for name, _ in model.named_parameters()}
    if set(saved) != set(wanted) or any(not torch.equal(saved[n], wanted[n]) for n in wanted):
        raise SystemExit(f"save_pretrained writes other names: {set(saved) ^ set(wanted)}")


def undetermined(task: str, name: str) -> bool:
    """A key bias shifts all scores of a query alike; the span head's bias, and the shift of the
    norm before it, all logits of a text. The true gradient is zero and Adam turns rounding errors
    into updates, so neither the gradient nor the final value means anything."""
    endings = ["attention.self.key.bias"]
    if task == "span":
        endings += ["qa_outputs.bias", "layer.2.output.LayerNorm.bias"]
    return name.endswith(tuple(endings))


def write_task(task: str, initial, inputs, out: Path) -> None:
    check_names(task, initial)
    values = run(task, initial, inputs, torch.float32, "eager")
    # The eager path casts its softmax to float32 whatever the dtype; sdpa stays in float64.
    exact = run(task, initial, inputs, torch.float64, "sdpa")
    # Of all batches with the initial weights: one batch has too few numbers to compare errors.
    for name, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16)):
        with torch.no_grad():
            model = make_model(task, initial, dtype, "eager")
            batches = [forward(model, task, inputs, i, dtype)[0].float() for i in range(STEPS)]
        values[f"initial_logits.{name}"] = torch.stack(batches)

    floor = {}
    print(f"{task}: loss {values['loss'][0]:.6f} -> {values['loss'][-1]:.6f}")
    for group in ("logits", "loss", "grad", "final"):
        members = {
            name: relative_error(value, exact[name])
            for name, value in values.items()
            if name.split(".")[0] == group and not undetermined(task, name)
        }
        if members:
            worst = max(members, key=members.get)
            floor[group] = members[worst]
            print(f"  |f32 - f64| / |f64| of {group:7} {members[worst]:.2e}  ({worst})")
    bf16 = relative_error(values["initial_logits.bf16"], values["initial_logits.f32"])
    print(f"  |bf16 - f32| / |f32| of the logits of all batches {bf16:.2e}")
    exact_gradients = all_gradients(task, initial, inputs, torch.float32)
    bf16_gradients = relative_error(
        all_gradients(task, initial, inputs, torch.bfloat16), exact_gradients
    )
    print(f"  |bf16 - f32| / |f32| of all gradients {bf16_gradients:.2e}")
    description = {
        "bf16_gradient_error": bf16_gradients,
        "config": json.loads(make_config(task).to_json_string(use_diff=False)),
        "optimizer": OPTIMIZER,
        "gradient_norm": math.sqrt(
            sum(v.double().norm() ** 2 for n, v in exact.items() if n.startswith("grad."))
        ),
        "undetermined": sorted(
            n.removeprefix("grad.") for n in exact if n[:5] == "grad." and undetermined(task, n)
        ),
        "noise_floor": floor,
    }
    write(out / f"bert_{task}.safetensors", values, description)


def write(target: Path, tensors, description) -> None:
    # A single metadata key: with several, their order in the file would not be fixed.
    save_file(
        {name: value.contiguous() for name, value in tensors.items()},
        target,
        metadata={"golden": json.dumps(description, sort_keys=True)},
    )
    print(f"{target}: {len(tensors)} tensors, {target.stat().st_size} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "golden")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    # One thread: the order of every sum is then the same on each run.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    generator = torch.Generator().manual_seed(SEED)
    torch.manual_seed(SEED)
    initial = initial_parameters(generator)
    inputs = make_inputs(generator)
    tensors = {f"param.{name}": value for name, value in initial.items()}
    tensors |= {f"input.{name}": value for name, value in inputs.items()}
    description = {
        "steps": STEPS,
        "batch": BATCH,
        "tokens": TOKENS,
        "seed": SEED,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    write(out / "bert_small.safetensors", tensors, description)
    for task in TASKS:
        write_task(task, initial, inputs, out)


if __name__ == "__main__":
    main()
