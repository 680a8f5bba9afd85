"""Golden values of tests/data/test_metrics.cpp and test_squad.cpp: metrics.json.

Class and score metrics come from scikit-learn and SciPy. SQuAD's scores, windows and decoding follow
the published rules, written here from their description (Rajpurkar et al. 2018; Devlin et al. 2019)
with Python's own string functions, sets and loops, and no code shared with what is tested.
"""

import argparse
import collections
import json
import pathlib
import re
import string

import numpy
import scipy
import scipy.stats
import sklearn
import sklearn.metrics


def class_cases(rng):
    cases = []
    for classes, n in [(2, 1), (2, 40), (2, 300), (3, 200), (7, 90)]:
        labels = rng.integers(0, classes, n)
        guess = numpy.where(rng.random(n) < 0.6, labels, rng.integers(0, classes, n))
        cases.append((classes, labels, guess))
    cases.append((2, numpy.array([0, 1, 1, 0]), numpy.array([0, 0, 0, 0])))  # one class predicted
    cases.append((2, numpy.array([0, 0, 0]), numpy.array([0, 0, 0])))  # no positive at all
    cases.append((4, numpy.array([0, 2, 2, 0, 2]), numpy.array([0, 2, 0, 0, 2])))  # classes absent
    out = []
    for classes, labels, guess in cases:
        average = "binary" if classes == 2 else "macro"
        out.append({
            "classes": classes,
            "labels": labels.tolist(),
            "predictions": guess.tolist(),
            "accuracy": float(sklearn.metrics.accuracy_score(labels, guess)),
            "f1": float(sklearn.metrics.f1_score(labels, guess, average=average, zero_division=0)),
            "matthews": float(sklearn.metrics.matthews_corrcoef(labels, guess)),
        })
    return out


def score_cases(rng):
    cases = []
    for n in (2, 25, 150):
        labels = numpy.round(rng.random(n) * 5, 1)  # ties, as in STS-B
        cases.append((labels, labels + rng.normal(0, 1, n)))
    labels = numpy.round(rng.random(80) * 5)
    cases.append((labels, numpy.round(labels + rng.normal(0, 2, 80))))  # many ties on both sides
    cases.append((1e6 + rng.random(50), 1e6 + rng.random(50)))  # large mean
    return [{
        "labels": labels.tolist(),
        "predictions": guess.tolist(),
        "pearson": float(scipy.stats.pearsonr(guess, labels)[0]),
        "spearman": float(scipy.stats.spearmanr(guess, labels)[0]),
        "mse": float(sklearn.metrics.mean_squared_error(labels, guess)),
    } for labels, guess in cases]


def normalize(text):
    text = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def exact(gold, guess):
    return int(normalize(gold) == normalize(guess))


def f1(gold, guess):
    gold, guess = normalize(gold).split(), normalize(guess).split()
    if not gold or not guess:
        return int(gold == guess)
    same = sum((collections.Counter(gold) & collections.Counter(guess)).values())
    if same == 0:
        return 0
    precision, recall = same / len(guess), same / len(gold)
    return 2 * precision * recall / (precision + recall)


ANSWER_PAIRS = [
    ("The River Thames", "river thames"),
    ("the river Thames, in London", "Thames"),
    ("a  b\tc", "c b a"),
    ("an apple a day", "apple day day"),
    ("U.S.", "us"),
    ("The", "a"),
    ("the", "London"),
    ("", ""),
    ("", "x"),
    ("12,000", "12000"),
    ("theatre", "The atre"),
    ("a-b the-end", "ab theend"),
    ("É a Über", "é über"),
    ("ÀÉÎÕÜ Ñ ẞ Ω Ж", "àéîõü ñ ß ω ж"),
    ("İstanbul", "i̇stanbul"),
    ("naïve“the”café", "naïve“ ”café"),  # curly quotes are no ASCII punctuation, yet word borders
    ("thé a\u0301 x", "the x"),  # a combining accent ends the word "a"
    ("no\u00a0break\u2003em\u3000wide\u200bzero", "no break em wide\u200bzero"),
    ("②a ½the a1", "②a ½the a1"),
    ("$5 million", "5 million dollars"),
    ("the the the", "a"),
    ("snake_case a_b", "snakecase ab"),
    ("x\x1cy\x85z", "x y z"),
    ("東京 the 大阪", "東京 大阪"),
    ("東京the大阪", "東京the大阪"),
]

ARTICLES = [
    ("Rivers", [
        ("The Ouse rises near a small village and flows for ninety miles to the sea . Its "
         "tributaries are the Swale , the Ure and the Nidd , all of which begin in the hills . "
         "Boats of up to forty tonnes still use it .", [
             ("r1", "How far does the Ouse flow ?", ["ninety miles", "for ninety miles"]),
             ("r2", "Which boats use the Ouse ?", ["of up to forty tonnes", "forty tonnes"]),
             ("r3", "Who owns the Ouse ?", []),
             ("r4", "Where does it rise ?", ["The Ouse rises near a small village"]),
         ]),
        ("Zürich liegt — so sagt man — am See ; the city’s café “Größe” sells naïve 東京 cakes .", [
            ("r5", "What does it sell ?", ["naïve 東京 cakes", "cakes"]),
            ("r6", "What is sold ?", ["cakes ."]),
            ("r7", "When was it founded ?", []),
        ]),
    ]),
    ("Clocks", [
        ("A water clock measures time by the flow of water", [
            ("c1", "What does a water clock measure ?", ["time"]),
            ("c2", "By what ?", ["the flow of water", "flow of water", "water"]),
            ("c3", "How much does one cost ?", []),
            ("c4", "Which clock ?", ["A"]),
        ]),
    ]),
]

MAX_LENGTH, STRIDE, BEST, LONGEST = 24, 5, 6, 7


def squad_file():
    data = []
    for title, paragraphs in ARTICLES:
        out = []
        for context, questions in paragraphs:
            out.append({"qas": [{
                "question": text,
                "id": name,
                "answers": [{"text": a, "answer_start": context.index(a)} for a in answers],
                "is_impossible": not answers,
            } for name, text, answers in questions], "context": context})
        data.append({"title": title, "paragraphs": out})
    return {"version": "v2.0", "data": data}


def pieces(text):
    """(first character, one past the last) of each word between single spaces."""
    return [m.span() for m in re.finditer(r"[^ ]+", text)]


def logit(row, token, which):
    mixed = row * 7919 + token * 104729 + which * 15485863
    raised = 4 if token == 0 else 0  # so that no answer wins now and then
    return numpy.float32(mixed * mixed % 99991) / numpy.float32(8192) + numpy.float32(raised)


def windows(file):
    rows = []
    for article in file["data"]:
        for paragraph in article["paragraphs"]:
            context = paragraph["context"]
            words = pieces(context)
            for qa in paragraph["qas"]:
                asked = len(pieces(qa["question"]))
                room = MAX_LENGTH - 3 - asked
                begin = 0
                while True:
                    part = words[begin:begin + room]
                    start = end = 0
                    if qa["answers"]:
                        first = qa["answers"][0]["answer_start"]
                        last = first + len(qa["answers"][0]["text"])
                        if part[0][0] <= first and part[-1][1] >= last:
                            start = max(i for i, w in enumerate(part) if w[0] <= first)
                            end = min(i for i, w in enumerate(part) if w[1] >= last)
                            start, end = start + asked + 2, end + asked + 2
                    rows.append({"id": qa["id"], "context": context, "words": part,
                                 "context_begin": asked + 2, "length": asked + 3 + len(part),
                                 "start": start, "end": end})
                    if begin + room >= len(words):
                        break
                    begin += room - STRIDE
    return rows


def decode(rows, name, no_answer):
    spans, null = [], None
    for row, feature in enumerate(rows):
        if feature["id"] != name:
            continue
        start = numpy.array([logit(row, t, 0) for t in range(feature["length"])])
        end = numpy.array([logit(row, t, 1) for t in range(feature["length"])])
        assert len(set(start)) == len(start) and len(set(end)) == len(end)
        score = start[0] + end[0]
        null = score if null is None else min(null, score)
        for s in numpy.argsort(start)[::-1][:BEST]:
            for e in numpy.argsort(end)[::-1][:BEST]:
                a, b = s - feature["context_begin"], e - feature["context_begin"]
                if 0 <= a <= b < len(feature["words"]) and b - a < LONGEST:
                    text = feature["context"][feature["words"][a][0]:feature["words"][b][1]]
                    spans.append((float(start[s] + end[e]), text))
    assert len({score for score, _ in spans}) == len(spans)  # ties have no order of their own
    entries = sorted(spans + ([(float(null), "")] if no_answer else []), reverse=True)[:BEST]
    if no_answer and not any(text == "" for _, text in entries):
        entries.append((float(null), ""))
    odds = float(null) - max((s for s, _ in spans), default=0.0)
    best = max(spans)[1] if spans else ""
    raised = numpy.exp(numpy.array([s for s, _ in entries], dtype=numpy.float64) - entries[0][0]) \
        if entries else numpy.array([])
    return {
        "id": name,
        "text": "" if no_answer and odds > 0 else best,
        "answer": best,
        "null_odds": odds,
        "candidates": [[text, score, float(p)] for (score, text), p in
                       zip(entries, raised / raised.sum() if entries else [])],
    }


def evaluate(file, predictions, odds):
    """The official evaluation, with the best no-answer threshold for the given best spans."""
    scores = {}
    for article in file["data"]:
        for paragraph in article["paragraphs"]:
            for qa in paragraph["qas"]:
                gold = [a["text"] for a in qa["answers"] if normalize(a["text"])] or [""]
                scores[qa["id"]] = {
                    "has": bool(qa["answers"]),
                    "exact": {k: max(exact(g, predictions[qa["id"]][k]) for g in gold)
                              for k in ("text", "answer")},
                    "f1": {k: max(f1(g, predictions[qa["id"]][k]) for g in gold)
                           for k in ("text", "answer")},
                }
    out = {"total": len(scores)}
    for prefix, chosen in (("", list(scores)), ("has_answer_", [k for k in scores if scores[k]["has"]]),
                           ("no_answer_", [k for k in scores if not scores[k]["has"]])):
        out[prefix + "total"] = len(chosen)
        for metric in ("exact", "f1"):
            out[prefix + metric] = 100 * sum(scores[k][metric]["text"] for k in chosen) / len(chosen)
    for metric in ("exact", "f1"):
        # Every threshold between neighbouring odds, each evaluated from the start.
        best, where = None, None
        for threshold in [min(odds.values()) - 1] + sorted(odds.values()):
            total = sum((not s["has"]) if odds[k] > threshold else s[metric]["answer"]
                        for k, s in scores.items())
            if best is None or total > best + 1e-9:
                best, where = total, threshold
        out["best_" + metric] = 100 * best / len(scores)
        out["best_" + metric + "_threshold"] = where
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    golden = pathlib.Path(__file__).resolve().parent.parent / "golden"
    parser.add_argument("--out", type=pathlib.Path, default=golden)
    args = parser.parse_args()
    rng = numpy.random.default_rng(7)

    file = squad_file()
    rows = windows(file)
    names = list(dict.fromkeys(row["id"] for row in rows))
    decoded = {name: decode(rows, name, True) for name in names}
    # Odds and spans of a mediocre model, for the evaluation: some right, some wrong, some partial.
    golds = {qa["id"]: [a["text"] for a in qa["answers"]] for article in file["data"]
             for paragraph in article["paragraphs"] for qa in paragraph["qas"]}
    said = {}
    for i, name in enumerate(names):
        gold = golds[name]
        answer = ["the " + gold[-1], gold[0] + " today", "nothing like it"][i % 3] if gold else \
            ["", "some words"][i % 2]
        said[name] = {"answer": answer, "null_odds": float(numpy.round(rng.normal(-1 if gold else 1, 2), 3))}
        said[name]["text"] = "" if said[name]["null_odds"] > 0 else answer
    odds = {name: said[name]["null_odds"] for name in names}
    assert len(set(odds.values())) == len(odds)

    out = {
        "versions": {"numpy": numpy.__version__, "scipy": scipy.__version__,
                     "sklearn": sklearn.__version__},
        "classes": class_cases(rng),
        "scores": score_cases(rng),
        "answers": [{"gold": g, "predicted": p, "normalized": normalize(g), "exact": exact(g, p),
                     "f1": f1(g, p)} for g, p in ANSWER_PAIRS],
        "squad": {
            "file": file,
            "max_length": MAX_LENGTH, "stride": STRIDE, "best": BEST, "max_answer_tokens": LONGEST,
            "windows": [{"id": row["id"], "length": row["length"],
                         "context_begin": row["context_begin"], "start": row["start"],
                         "end": row["end"],
                         "texts": [row["context"][a:b] for a, b in row["words"]]} for row in rows],
            "decoded": [decoded[name] for name in names],
            "decoded_v1": [decode(rows, name, False) for name in names],
            "said": [{"id": name, **said[name]} for name in names],
            "evaluation": evaluate(file, said, odds),
        },
    }
    path = args.out / "metrics.json"
    path.write_text(json.dumps(out, ensure_ascii=False, indent=1) + "\n")
    print(path, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
