#!/usr/bin/env python3
"""Golden values of the WordPiece tokenizer, from the `tokenizers` library.

Writes tokenizer_vocab.txt (a small vocabulary made from the lines below), tokenizer_cases.bin (lines
and what the library makes of them under several settings) and tokenizer_unicode.bin (how it classifies
and maps every code point). No line and no code point is left out, unassigned ones included. Lines of
bytes that are not UTF-8 reach the library as Python's errors="replace" reads them.

The .bin files are "LTKG", a version byte and unsigned LEB128 numbers; signed ones are zigzag coded, spans
are code points as the distance from the end before and the length. write_cases() and write_unicode() give
the order; tests/data/tokenizer_golden.h reads it.

--vocab FILE and --text FILE ... replace the vocabulary and add lines, for a comparison with a real
vocabulary and real text; such files are not committed.
"""

import argparse
import json
import random
import sys
import unicodedata
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

SEED = 29
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
STRATEGIES = ["longest_first", "only_first", "only_second"]

WORDS = """a the of and to in is it that was for on are as with his they at be this have from or one had by word
but not what all were we when your can said there use an each which she do how their if will up other about out
many then them these so some her would make like him into time has look two more write go see number no way could
people my than first water been call who oil its now find long down day did get come made may part over new sound
take only little work know place year live me back give most very after thing our just name good sentence man think
say great where help through much before line right too mean old any same tell boy follow came want show also around
form three small set put end does another well large must big even such because turn here why ask went men read need
land different home us move try kind hand picture again change off play spell air away animal house point page letter
mother answer found study still learn should world film movie actor plot script director boring brilliant unwatchable
charming dull predictable heartfelt masterpiece waste tokenization embeddings unbelievable internationalization
antidisestablishmentarianism gradient transformer quantization hyperparameter"""
CONTRACTIONS = ["don't", "I'm", "they're", "it's", "won't", "she'd", "we've", "o'clock", "rock'n'roll", "y'all'd've",
                "don\u2019t", "it\u2019s", "l\u2019\u00e9t\u00e9"]
NUMBERS = ["0", "7", "42", "1,000", "3.14159", "-12", "1e-5", "50%", "$9.99", "\u20ac20", "2024-02-29", "12:30", "007",
           "1/2", "\u00bd", "\u00b2", "\u2163", "\u0664\u0662", "\uff11\uff12", "10\u2076", "IV", "99999999999999999999"]
URLS = ["https://example.org/a/b?c=d&e=f#g", "www.example.com", "mailto:a.b+c@example.co.uk", "C:\\Temp\\x.txt",
        "/usr/lib/x86_64", "ftp://[::1]:21/", "#hashtag", "@someone"]
CODE = ["for (int i = 0; i < n; ++i) { a[i] += b[i]; }", "if x == None: return {'k': [1, 2]}", "<b>bold</b>&nbsp;",
        "SELECT * FROM t WHERE a<>'b';", "#include <vector>", "a->b::c<d>(e)...", "x = y ? z : ~w ^ v | u & t;",
        "\\frac{1}{2} \\alpha_i^2", "**bold** _it_ `code` ~~no~~ | a | b |", "\"quoted\" 'single' ``tick''",
        "$PATH ${HOME} `pwd` \\n \\t", "0xDEADBEEF 0b1010 1_000"]
SCRIPTS = [
    "\u0130stanbul \u0130\u0131Ii I\u0307 i\u0307 \u0131\u0307", "STRASSE Stra\u00dfe \u1e9e \u00df GRO\u1e9e",
    "\ufb01nal \ufb02ow \ufb03 \ufb04 \ufb05 \u0132 \u01c4 \u01c5 \u01f1", "\u039f\u0394\u039f\u03a3 \u03a3\u038a\u03a3\u03a5\u03a6\u039f\u03a3 \u03c2\u03c3",
    "\u1f08\u03c1\u03b9\u03c3\u03c4\u03bf\u03c4\u03ad\u03bb\u03b7\u03c2 \u1fbc \u1ffc \u1f80 \u0390 \u03b0",
    "Tr\u1ea7n H\u01b0ng \u0110\u1ea1o \u1ec6 \u1eaa \u01a0", "Za\u017c\u00f3\u0142\u0107 g\u0119\u015bl\u0105 ja\u017a\u0144 \u0141\u00d3D\u0179",
    "P\u0159\u00edli\u0161 \u017elu\u0165ou\u010dk\u00fd k\u016f\u0148", "\u041f\u0440\u0438\u0432\u0435\u0442, \u041c\u0418\u0420! \u0401\u0436 \u0439 \u0419 \u0407",
    "\u05e9\u05c1\u05b8\u05dc\u05d5\u05b9\u05dd \u05e2\u05d5\u05b9\u05dc\u05b8\u05dd \ufb2a\ufb1d", "\u0645\u0631\u062d\u0628\u0627 \u0628\u0650\u0633\u0652\u0645\u0650 \u0627\u0644\u0644\u0651\u0670\u0647 \ufefb \u0622\u0623",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0915\u093c \u0958 \u0939\u093f\u0928\u094d\u0926\u0940\u0964", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01 \u0e33",
    "\ud55c\uad6d\uc5b4 \uc548\ub155\ud558\uc138\uc694 \u1112\u1161\u11ab \u3131\u314f", "\u65e5\u672c\u8a9e\u306e\u6587\u7ae0\u3002\u30ab\u30bf\u30ab\u30ca \uff76\uff80\uff76\uff85 \u30ac \u30cf\u309a",
    "\u4e2d\u6587\u548cEnglish\u6df7\u5408123\u3001\u300c\u5f15\u7528\u300d\u3000\u5168\u89d2\uff21\uff22\uff23", "\u0ba4\u0bae\u0bbf\u0bb4\u0bcd \u0bca \u0bcb \u0b94", "\u0d2e\u0d32\u0d2f\u0d3e\u0d33\u0d02 \u0d4a",
    "\u0f56\u0f7c\u0f51\u0f0b\u0f66\u0f90\u0f51\u0f0b \u0f43 \u0f73 \u0f81", "\u1019\u103c\u1014\u103a\u1019\u102c\u1005\u102c\u104b", "\u12a0\u121b\u122d\u129b\u1361\u1362", "\u13a0\u13e3\u13ef \uab70\u13f8 \u10d0 \u1c90 \u10a0",
    "\u0531\u0580\u0574\u0565\u0576\u056b\u0561 \u0587 \u0589", "\U00010400\U00010428 \U0001e921\U0001e943\U0001e944 \U000104b0 \U00016e40", "\u212b \u2126 \u212a \u00c5 A\u030a \u1e9b\u0323 \u1e69 s\u0323\u0307 s\u0307\u0323",
    "\U0001d11e \U0001d15e \U0001d400\U0001d7d8 \u2102 \u24b6\u24d0 \u2460 \U0001f150", "Dz \u01c6 \u1e9e \u0149 \u01f0 \u1e96 \u2c62 \ua78d \u0243",
]
SPACES = [" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u1680", "\u2002", "\u2009", "\u200a", "\u2028", "\u2029", "\u202f", "\u205f",
          "\u3000", "\x0b", "\x0c", "\x1c", "\x1f", "\x85"]
INVISIBLE = ["\u200b", "\u200c", "\u200d", "\u2060", "\ufeff", "\u00ad", "\u200e", "\u200f", "\u202a", "\u202e", "\u2066", "\u2069", "\u061c",
             "\u180e", "\x00", "\x01", "\x08", "\x1b", "\x7f", "\x80", "\x9f", "\ufffd", "\ufffe", "\uffff", "\ue000", "\uf8ff",
             "\U000f0000", "\U0010fffd", "\U0010ffff", "\U000e0001", "\U000e0041", "\ufe0f", "\ufe00", "\U000e0100", "\u034f",
             "\u115f", "\u3164", "\ufff9", "\u0600", "\u06dd", "\u08e2", "\U000110bd", "\U000110cd", "\U00013430"]
EMOJI = ["\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466", "\U0001f44d\U0001f3fd", "\u2764\ufe0f", "\U0001f1e9\U0001f1ea", "1\ufe0f\u20e3",
         "\U0001f3f3\ufe0f\u200d\U0001f308", "\U0001f9d1\U0001f3fe\u200d\U0001f680", "\U0001f3f4\U000e0067\U000e0062\U000e007f", "\u263a", "\u00a9", "\u2122", "\U0001fae8"]
CJK_EDGES = [0x33FF, 0x3400, 0x4DBF, 0x4DC0, 0x4DFF, 0x4E00, 0x9FFF, 0xA000, 0xF8FF, 0xF900, 0xFA0E, 0xFAFF, 0xFB00,
             0x1FFFF, 0x20000, 0x2A6DF, 0x2A6E0, 0x2A6FF, 0x2A700, 0x2B73F, 0x2B740, 0x2B81F, 0x2B820, 0x2B91F,
             0x2B920, 0x2CEAF, 0x2CEB0, 0x2F7FF, 0x2F800, 0x2FA1F, 0x2FA20, 0x30000]
SPECIAL_LINES = """[SEP]|[sep]|[Sep]|[ SEP ]|[[SEP]]|[SEP|SEP]|x[SEP]y|x [SEP] y|[CLS][SEP]|[CLS] [CLS]|[MASK]ed|un[MASK]able
[PAD][PAD]|the [UNK] word|[UNK]|[unk]|[SEP].|.[SEP]|[SEP]\u0301|e[SEP]\u0301x|[SE\u200bP]|[\u200bSEP]|[S\u00c9P]|[MASK|[CLS]]|[CLS
<s> </s>|<ent>|a <ent> b|a<ent>b|  <ent>  |<ent><ent>|<ENT>|<ent> <ent> x|\u3000<ent>\u2009\u00e9|in N\u00fcrnberg now|N\u00dcRNBERG|nurnberg|nu\u0308rnbergs
new york|New York City|NEW\u00a0YORK|new  york|news new yorker|walking ing ing. |ing|king of ing-land|\u00e9ing ing\u00e9|ing_ _ing 1ing
[URL] x|[URL]  x|[URL] xyz|see [URL]\t[URL] x [URL]|\u65e5\u672c\u8a9e|\u65e5 \u672c|in\u65e5\u672cis|ing\u200d ing|ing\u24d0 \u24d0ing|ing\u0301 ing"""


def words_of(rng, count):
    words = WORDS.split()
    out = []
    for _ in range(count):
        word = rng.choice(words)
        style = rng.random()
        if style < 0.12:
            word = word.capitalize()
        elif style < 0.16:
            word = word.upper()
        elif style < 0.24:
            word = rng.choice(CONTRACTIONS)
        elif style < 0.32:
            word = rng.choice(NUMBERS)
        elif style < 0.34:
            word = rng.choice(URLS)
        out.append(word + rng.choice(["", "", "", "", ",", ".", "!", "?!", "...", ";", ")", "\u2014", "\u2026", "\""]))
    return out


def block_lines(rng):
    """A line from each 256 code points that hold anything, with letters between them."""
    for page in [*range(0x000, 0x330), *range(0xE00, 0xE02), 0xF00, 0x10FF]:
        points = [c for c in range(page * 256, page * 256 + 256) if not 0xD800 <= c < 0xE000]
        if not points:
            continue
        dense = 0x34 <= page <= 0x9F or 0xAC <= page <= 0xD7 or 0xE0 <= page <= 0xF8 or page >= 0x200
        if dense and page % 8:
            continue
        known = [c for c in points if unicodedata.category(chr(c)) != "Cn"]
        line = ""
        for _ in range(rng.randint(6, 9)):
            pool = known if known and rng.random() < 0.9 else points
            line += chr(rng.choice(pool)) + rng.choice(["", "", "a", "B ", " ", "."])
        yield line


def mark_lines(rng, count):
    marks = [c for c in range(0x300, 0x1F000) if unicodedata.category(chr(c)) in ("Mn", "Mc", "Me")]
    near = [c for c in marks if c < 0x370]
    bases = "aeiouyAEIOUYnczs\u00e9\u00dc\u1ec7\u0439\uac00\uac01\u304b\u0915\u05d0\u0627 "
    for _ in range(count):
        line = "".join(
            rng.choice(bases) + "".join(chr(rng.choice(near if rng.random() < 0.6 else marks)) for _ in range(rng.randint(0, 4)))
            for _ in range(rng.randint(2, 6)))
        yield line if rng.random() < 0.9 else chr(rng.choice(marks)) + line


def long_lines():
    for size in (99, 100, 101, 150):
        yield "a" * size
        yield "the " + "\u00e9" * size + " end"
    for size in (50, 100, 101):
        yield "e\u0301" * size  # shorter once accents are gone
        yield "x" + "\u0301" * size
        yield "\u0130" * size
        yield "\u4e2d" * size
    yield "\u1100\u1161" * 60
    yield "\uac01" * 34
    yield "a" * 60 + "-" + "b" * 60
    yield "a" * 60 + "\u200b" + "b" * 60
    yield "a" * 100 + "." + "a" * 101 + "[SEP]" + "a" * 100


def mixed_lines(rng, count):
    pools = [EMOJI, INVISIBLE, SPACES, SPECIAL, CONTRACTIONS, NUMBERS]
    for _ in range(count):
        line = ""
        for word in words_of(rng, rng.randint(1, 4)):
            line += word + rng.choice(rng.choice(pools)) + rng.choice(["", " "])
        if rng.random() < 0.3:
            line = rng.choice(SPACES + INVISIBLE) + line
        if rng.random() < 0.3:
            line += rng.choice(SCRIPTS)[: rng.randint(1, 12)]
        yield line


def ill_formed_lines(rng, count):
    """Bytes that are not UTF-8; the library is given what Python's errors="replace" makes of them."""
    fixed = [b"\xff", b"a\x80b", b"\xc0\xaf", b"\xe2\x82", b"\xe2\x82 x", b"\xed\xa0\x80", b"\xf0\x9f\x98", b"\xf4\x90\x80\x80",
             b"\xf5\x80", b"caf\xe9 ok", b"\xe2(\xa1", b"\xf0\x9f\xe2\x82\xac", b"x\xc3", b"\xc3\xc3\xa9", b"[SEP]\x80[SEP]"]
    yield from fixed
    for _ in range(count):
        raw = bytearray(" ".join(words_of(rng, 2)).encode() + rng.choice(EMOJI + SCRIPTS)[:8].encode())
        for _ in range(rng.randint(1, 3)):
            raw[rng.randrange(len(raw))] = rng.randrange(0x80, 0x100)
        yield bytes(raw)


def make_lines():
    rng = random.Random(SEED)
    lines = ["", " ", "\t\n", "\u3000", "\x00", "\u200b", "\u0301", "\ufffd", "\u0344", "-", ".", "##", "##ing", "# #"]
    lines += [" ".join(words_of(rng, rng.randint(2, 7))) for _ in range(445)]
    lines += CODE + URLS + CONTRACTIONS + NUMBERS + EMOJI + INVISIBLE
    for text in SCRIPTS:
        lines += [text, text.upper(), text.lower(), unicodedata.normalize("NFD", text), unicodedata.normalize("NFC", text)]
    lines += list(block_lines(rng))
    lines += list(mark_lines(rng, 280))
    lines += ["a" + chr(c) + "b " + chr(c) for c in CJK_EDGES]
    lines += ["x" + space + "y" for space in SPACES] + ["x" + c + "y" for c in INVISIBLE]
    lines += SPECIAL_LINES.replace("\n", "|").split("|")
    lines += list(long_lines())
    lines += list(mixed_lines(rng, 460))
    lines += [" ".join(rng.choice(EMOJI) for _ in range(3)) + rng.choice(EMOJI) for _ in range(30)]
    return [line.encode() for line in lines] + list(ill_formed_lines(rng, 60))


def normalizer(**options):
    return normalizers.BertNormalizer(**({"clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
                                          "lowercase": True} | options))


def make_vocabulary(lines):
    """Characters, words and pieces of most lines; some of everything stays unknown."""
    rng = random.Random(SEED + 1)
    splitter = pre_tokenizers.BertPreTokenizer()
    counts = {}
    for raw in lines:
        text = raw.decode(errors="replace")
        for options in ({}, {"lowercase": False}):
            for word, _ in splitter.pre_tokenize_str(normalizer(**options).normalize_str(text)):
                counts[word] = counts.get(word, 0) + 1
    pieces = {}
    for word in sorted(counts):
        if len(word) > 24:
            continue
        if rng.random() < 0.12 and len(word.encode()) <= 12:
            pieces[word] = None
        for _ in range(1 if rng.random() < 0.35 else 0):
            cut = rng.randint(1, len(word))
            pieces[word[:cut]] = None
            if cut < len(word):
                pieces["##" + word[cut:][: rng.randint(1, 6)]] = None
    for char in sorted({c for word in counts for c in word}):
        if ord(char) < 0x80 or rng.random() < 0.25:
            pieces[char] = None
            pieces["##" + char] = None
    vocabulary = SPECIAL + [f"[unused{i}]" for i in range(5)]
    vocabulary += [p for p in sorted(pieces) if p not in vocabulary and not set(p) & set("\n\r\x00")]
    return {token: i for i, token in enumerate(vocabulary)}


def make_tokenizer(vocabulary, added=(), bert_processing=False, prefix="##", max_chars=100, **options):
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", continuing_subword_prefix=prefix,
                                           max_input_chars_per_word=max_chars))
    tokenizer.normalizer = normalizer(**options)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(SPECIAL)
    for token in added:
        (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])
    sep, cls = (("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"]))
    if bert_processing:
        tokenizer.post_processor = processors.BertProcessing(sep, cls)
    else:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1", special_tokens=[cls, sep])
    return tokenizer


ADDED = [
    AddedToken("<ent>", special=True, normalized=False, lstrip=True, rstrip=True),
    AddedToken("N\u00fcrnberg", normalized=True),
    AddedToken("new york", normalized=True),
    AddedToken("ing", normalized=False, single_word=True),
    AddedToken("[URL]", special=True, normalized=False, rstrip=True),
    AddedToken("[URL] x", special=True, normalized=False),
    AddedToken("\u65e5\u672c", normalized=True, lstrip=True),
]


def make_tokenizers(vocabulary):
    return [
        make_tokenizer(vocabulary),
        make_tokenizer(vocabulary, lowercase=False),
        make_tokenizer(vocabulary, strip_accents=False, clean_text=False, handle_chinese_chars=False),
        make_tokenizer(vocabulary, lowercase=False, strip_accents=True, bert_processing=True, prefix="", max_chars=12),
        make_tokenizer(vocabulary, added=ADDED),
    ]


class Writer:
    def __init__(self):
        self.bytes = bytearray(b"LTKG\x01")

    def number(self, value):
        assert value >= 0
        while value >= 0x80:
            self.bytes.append(value & 0x7F | 0x80)
            value >>= 7
        self.bytes.append(value)

    def signed(self, value):
        self.number(value << 1 if value >= 0 else (-value << 1) - 1)

    def blob(self, data):
        self.number(len(data))
        self.bytes += data

    def spans(self, offsets):
        end = 0
        for begin, stop in offsets:
            self.signed(begin - end)
            self.signed(stop - begin)
            end = stop


def write_cases(path, lines, tokenizers_, plan, pairs):
    out = Writer()
    out.number(len(lines))
    for line in lines:
        out.blob(line)
    out.number(len(tokenizers_))
    for i, tokenizer in enumerate(tokenizers_):
        if i == 0:  # run-time settings that a reader has to ignore
            tokenizer.enable_truncation(8)
            tokenizer.enable_padding(length=16)
        tree = json.loads(tokenizer.to_str())
        tree["model"]["vocab"] = {}
        out.blob(json.dumps(tree, ensure_ascii=False).encode())
        tokenizer.no_truncation()
        tokenizer.no_padding()
    texts = [line.decode(errors="replace") for line in lines]
    out.number(len(plan))
    for which, line in plan:
        encoding = tokenizers_[which].encode(texts[line], add_special_tokens=False)
        out.number(which)
        out.number(line)
        out.number(len(encoding.ids))
        for token in encoding.ids:
            out.number(token)
        out.spans(encoding.offsets)
    out.number(len(pairs))
    refused = 0
    for which, first, second, max_length, strategy in pairs:
        tokenizer = tokenizers_[which]
        if max_length:
            tokenizer.enable_truncation(max_length, strategy=STRATEGIES[strategy])
        for value in (which, first, 0 if second is None else second + 1, max_length, strategy):
            out.number(value)
        try:
            encoding = tokenizer.encode(texts[first], None if second is None else texts[second])
        except Exception as error:
            assert "Truncation error" in str(error), error
            refused += 1
            out.number(0)
            continue
        finally:
            tokenizer.no_truncation()
        out.number(len(encoding.ids) + 1)
        for token, kind, sequence in zip(encoding.ids, encoding.type_ids, encoding.sequence_ids):
            out.number(token)
            out.number(kind)
            out.number(0 if sequence is None else sequence + 1)
        out.spans(encoding.offsets)
    path.write_bytes(out.bytes)
    return refused


def reorders(nfd, char):
    """True for a combining class other than 0: the mark changes places with one of class 1 or 240."""
    after, before = "a" + char + "\u0334", "a\u0345" + char
    return nfd.normalize_str(after) != after or nfd.normalize_str(before) != before


def write_unicode(path):
    """Classes of all code points as runs, then decompositions and lower case where they change one."""
    clean = normalizer(handle_chinese_chars=False, strip_accents=False, lowercase=False)
    chinese = normalizer(clean_text=False, strip_accents=False, lowercase=False)
    strip = normalizer(clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=False)
    splitter = pre_tokenizers.BertPreTokenizer()
    nfd, lower = normalizers.NFD(), normalizers.Lowercase()
    runs, mappings = [], ([], [])
    for point in range(0x110000):
        if 0xD800 <= point < 0xE000:
            kind = runs[-1][1]
        else:
            char = chr(point)
            cleaned = clean.normalize_str(char)
            pieces = len(splitter.pre_tokenize_str("a" + char + "a"))
            decomposed = nfd.normalize_str(char)
            kind = ((cleaned == "") | (cleaned == " ") << 1 | (chinese.normalize_str(char) != char) << 2
                    | (pieces == 3) << 3 | (pieces == 2) << 4
                    | (decomposed == char and strip.normalize_str(char) == "") << 5
                    | (decomposed == char and reorders(nfd, char)) << 6)
            for changed, mapping in zip((decomposed, lower.normalize_str(char)), mappings):
                # Hangul syllables decompose by a formula, which the test knows.
                if changed != char and not 0xAC00 <= point <= 0xD7A3:
                    mapping.append((point, changed))
        if not runs or runs[-1][1] != kind:
            runs.append((point, kind))
    out = Writer()
    out.number(len(runs))
    for (point, kind), (previous, _) in zip(runs, [(0, 0), *runs]):
        out.number(point - previous)
        out.number(kind)
    for mapping in mappings:
        out.number(len(mapping))
        previous = 0
        for point, changed in mapping:
            out.number(point - previous)
            out.number(len(changed))
            for char in changed:
                out.signed(ord(char) - point)
            previous = point
    path.write_bytes(out.bytes)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "golden")
    parser.add_argument("--vocab", type=Path)
    parser.add_argument("--text", type=Path, nargs="*", default=[])
    arguments = parser.parse_args()
    rng = random.Random(SEED + 2)
    lines = make_lines()
    for path in arguments.text:
        lines += path.read_bytes().split(b"\n")
    lines = list(dict.fromkeys(lines))
    if arguments.vocab:
        vocabulary = {token: i for i, token in enumerate(arguments.vocab.read_text().rstrip("\n").split("\n"))}
    else:
        vocabulary = make_vocabulary(lines)
    all_tokenizers = make_tokenizers(vocabulary)
    special = {line.encode() for line in SPECIAL_LINES.replace("\n", "|").split("|")}
    plan = [(which, i) for which in (0, 1) for i in range(len(lines))]
    plan += [(which, i) for which in (2, 3) for i in range(len(lines)) if rng.random() < 0.2]
    plan += [(4, i) for i, line in enumerate(lines) if line in special or rng.random() < 0.1]
    short = [i for i, line in enumerate(lines) if len(line) < 60]
    pairs = [(0, 0, 0, 0, 0)]
    for _ in range(300):
        first = rng.choice(short)
        second = rng.choice(short) if rng.random() < 0.8 else None
        max_length = rng.choice([0, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 16, 24])
        pairs.append((rng.choice([0, 0, 3]), first, second, max_length, rng.randrange(3)))
    arguments.out.mkdir(parents=True, exist_ok=True)
    refused = write_cases(arguments.out / "tokenizer_cases.bin", lines, all_tokenizers, plan, pairs)
    (arguments.out / "tokenizer_vocab.txt").write_text("".join(t + "\n" for t in vocabulary), newline="")
    if not arguments.vocab:
        write_unicode(arguments.out / "tokenizer_unicode.bin")
    print(f"tokenizers {tokenizers.__version__}: {len(lines)} lines, {len(vocabulary)} tokens, {len(plan)} tokenized,"
          f" {len(pairs)} encoded ({refused} refused)", file=sys.stderr)


if __name__ == "__main__":
    main()
