#!/usr/bin/env python3
"""Last hidden states of a pretrained BERT encoder, for the test that reads LITHE_MINILM.

make_minilm_hidden.py MODEL OUT: MODEL is a Hugging Face folder of a BertModel with a tokenizer (for
example sentence-transformers/all-MiniLM-L6-v2); OUT gets a link `model` to it and
hidden.safetensors. Nothing of either is committed.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModel, AutoTokenizer

TEXTS = [
    "The ferry to the island leaves at half past seven, weather permitting.",
    "She had never liked the colour of the kitchen walls.",
    "Stop!",
    "How many bridges cross the river between the old town and the harbour?",
    "In 1969 the program filled 8 KB of memory; today it would not fit in 80 MB.",
    "The committee postponed its decision, which surprised nobody who had followed the debate.",
    "A cup of sugar, two eggs, and a pinch of salt.",
    "The café's owner, Zoë, moved from Málaga to Kraków.",
    "Gradient descent takes small steps downhill.",
    "If you had asked me yesterday, I would have said no.",
    "It rained for eleven days, and on the twelfth the dam broke.",
    "The film is long, loud and, against all odds, rather moving.",
    "Prices rose by 3.2% in March, after a fall of 0.4% in February.",
    "He forgot the umbrella on the train again.",
    "(See the appendix for the proof; it is not difficult.)",
    "Whales are mammals, although they live in the sea.",
    ("The lights went out in the whole street.", "There was a power cut."),
    ("Two boys are playing chess in the park.", "Nobody is outside."),
    ("Where was the treaty signed?", "The treaty was signed in Utrecht in the spring of 1713."),
    ("Is this a question?", "Yes."),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    pairs = [text if isinstance(text, tuple) else (text,) for text in TEXTS]
    encoded = [tokenizer(*pair) for pair in pairs]
    batch = tokenizer.pad(encoded, padding="longest", return_tensors="pt")
    model = AutoModel.from_pretrained(args.model, attn_implementation="eager").eval()
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state
    save_file(
        {
            "input_ids": batch["input_ids"],
            "token_type_ids": batch["token_type_ids"],
            "attention_mask": batch["attention_mask"].bool(),
            "hidden": hidden.float().contiguous(),
        },
        args.out / "hidden.safetensors",
    )
    link = args.out / "model"
    link.unlink(missing_ok=True)
    link.symlink_to(args.model.resolve(), target_is_directory=True)
    print(f"{args.out}: {len(TEXTS)} texts of {hidden.shape[1]} tokens, hidden {hidden.shape[2]}")


if __name__ == "__main__":
    main()
