"""Training steps that are measured in Lithe and in PyTorch: the same models, shapes and precision.

Lithe's side is a recipe with overrides, PyTorch's the arguments of peers/MODEL_train_pytorch.py.
"""

from dataclasses import dataclass

# How a peer may run a step; a case names those that are worth its time, in this order.
MODES = {
    "eager": (),
    "cudagraphs": ("--compile", "reduce-overhead"),
    "checkpoint": ("--checkpoint",),
    "unfused": ("--attention", "eager"),
    "compile": ("--compile", "default"),
    # Without a mask attention may take a kernel that knows none; Lithe always takes the mask.
    "cudagraphs-nomask": ("--compile", "reduce-overhead", "--no_mask"),
    "compile-checkpoint": ("--compile", "default", "--checkpoint"),
}
NEEDS_CUDA = {"cudagraphs", "cudagraphs-nomask"}

PRECISIONS = {
    "fp32": ((), ()),
    "tf32": (("train.tf32=true",), ("--tf32",)),
    "bf16": (("train.compute=bf16",), ("--dtype", "bfloat16")),
}


@dataclass(frozen=True)
class Case:
    name: str
    model: str  # "bert" or "vit"
    precision: str
    recipe: str
    overrides: tuple[str, ...]  # of the recipe, without those of the precision
    peer: tuple[str, ...]  # arguments of the peer, without those of precision and mode
    modes: tuple[str, ...]

    def lithe_arguments(self) -> list[str]:
        return ["--recipe", self.recipe, *self.overrides, *PRECISIONS[self.precision][0]]

    def peer_arguments(self, mode: str) -> list[str]:
        if mode not in MODES:
            raise SystemExit(f"unknown mode '{mode}'; known are {', '.join(MODES)}")
        attention = ("--attention", "sdpa") if "--attention" not in MODES[mode] else ()
        return [*self.peer, *PRECISIONS[self.precision][1], *attention, *MODES[mode]]


def bert(name, batch, tokens, precision, modes, *, head="cls", overrides=(), peer=()) -> Case:
    recipe = f"configs/bench/bert_base_{head}.yaml"
    sizes = (f"train.batch_size={batch}", f"data.max_length={tokens}")
    sizes += (f"data.synthetic_size={10 * batch}",)
    arguments = ("--batch", str(batch), "--tokens", str(tokens), "--head", head, *peer)
    return Case(name, "bert", precision, recipe, sizes + tuple(overrides), arguments, tuple(modes))


def small_bert(hidden: int, layers: int, heads: int) -> dict[str, tuple[str, ...]]:
    sizes = {"hidden": hidden, "layers": layers, "heads": heads, "intermediate": 4 * hidden}
    keys = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    return {
        "overrides": tuple(
            f"model.bert.{k}={v}" for k, v in zip(keys, sizes.values(), strict=True)
        ),
        "peer": tuple(part for k, v in sizes.items() for part in (f"--{k}", str(v))),
    }


def vit(name, batch, precision, modes, *, overrides=(), peer=()) -> Case:
    recipe = "configs/bench/vit_b16.yaml"
    sizes = (f"train.batch_size={batch}", f"data.synthetic_size={10 * batch}")
    arguments = ("--batch", str(batch), *peer)
    return Case(name, "vit", precision, recipe, sizes + tuple(overrides), arguments, tuple(modes))


def demo_vit(name, batch, modes, *, layers=4) -> Case:
    overrides = (f"train.batch_size={batch}", f"model.vit.num_hidden_layers={layers}")
    peer = "--image 28 --patch 4 --channels 1 --hidden 96 --heads 4 --intermediate 192 --labels 10"
    arguments = (*peer.split(), "--layers", str(layers), "--batch", str(batch))
    recipe = "configs/quickstart/vit_fashion_mnist.yaml"
    return Case(name, "vit", "fp32", recipe, overrides, arguments, tuple(modes))


HEAD_ONLY = {"overrides": ("freeze.patterns=bert.*",), "peer": ("--head_only",)}
FAST = ("eager", "cudagraphs", "compile", "cudagraphs-nomask")

CASES = {
    "gpu": (
        bert("bert-cls 32x128 bf16", 32, 128, "bf16", FAST),
        bert("bert-qa 32x384 bf16", 32, 384, "bf16", FAST, head="qa"),
        bert("bert-qa 128x384 bf16", 128, 384, "bf16", FAST, head="qa"),
        vit("vit-b16 128 bf16", 128, "bf16", ("eager", "cudagraphs", "compile")),
        bert("bert-qa 32x384 tf32", 32, 384, "tf32", ("eager", "compile"), head="qa"),
        bert("bert-cls 32x128 bf16 head only", 32, 128, "bf16", FAST[:2], **HEAD_ONLY),
        bert("bert-cls 32x128 fp32", 32, 128, "fp32", ("eager",)),
        bert(
            "bert-qa 32x384 bf16 recompute",
            32,
            384,
            "bf16",
            ("checkpoint", "compile-checkpoint"),
            head="qa",
            overrides=("recompute=on",),
        ),
        vit(
            "vit-b16 128 bf16 recompute", 128, "bf16", ("checkpoint",), overrides=("recompute=on",)
        ),
        bert(
            "bert-qa 32x384 bf16 unfused",
            32,
            384,
            "bf16",
            ("unfused",),
            head="qa",
            overrides=("model.attention=unfused",),
        ),
    ),
    "cpu": (
        demo_vit("vit-demo 128 fp32", 128, ("eager", "unfused")),
        bert(
            "bert-small 8x128 fp32", 8, 128, "fp32", ("eager", "unfused"), **small_bert(384, 6, 12)
        ),
    ),
    # Of no meaning: to try the programs.
    "tiny": (
        demo_vit("vit-tiny 8 fp32", 8, ("eager", "checkpoint"), layers=2),
        bert("bert-tiny 4x16 fp32", 4, 16, "fp32", ("eager", "unfused"), **small_bert(32, 2, 2)),
        bert(
            "qa-tiny 4x16 bf16",
            4,
            16,
            "bf16",
            ("eager", "compile"),
            head="qa",
            **small_bert(32, 2, 2),
        ),
    ),
}
