"""Writes tokenizer_vectors.json: token ids and decoded texts of Hugging Face's own libraries, for hard strings.

Versions: Python 3.11.7, tokenizers 0.23.3, transformers 5.24.0.

    python tests/golden/tokenizer_vectors.py SHARED_DATA > tests/golden/tokenizer_vectors.json

SHARED_DATA is the folder with tokenizers/ and models/ that the tests read too. Folders with tokenizer.json are read by
`tokenizers`, as written; folders of vocab.json and merges.txt by transformers' AutoTokenizer. Two more tokenizers are
trained here on a few lines, so that their behaviour is tested where that folder is absent: one in the manner of
Llama 3 (byte-level, ignore_merges, added tokens of every kind), one in the manner of Llama 2 (byte fallback).
"""
import json
import random
import sys
from pathlib import Path

from tokenizers import Tokenizer, __version__ as tokenizers_version
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, __version__ as transformers_version

STRINGS = [
    "",
    " ",
    "Hello, world!",
    "  two  and   three    spaces  ",
    "tab\there\n\nnew\r\nlines \t\n  mixed",
    "I'm you're he'd we'll they've it's can't I'M YOU'RE 'S",
    "1 12 123 1234 12345 3.14159 1,000,000 ½ ² ٣ Ⅷ",
    "naïve café",
    "nai\u0308ve cafe\u0301 e\u0301\u0323 \u1ec7",
    "\u212b \ufb01 \uff21\uff22 \u1e9b\u0323",
    "你好，世界。日本語テキスト 한국어",
    "👍 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 👋🏽",
    "זה טקסט עברי العربية हिन्दी ภาษาไทย",
    "a\u00a0b\u2003c\u200bd\u3000e\u0085f\ufeffg\u180eh\u2028i",
    "\ufeffstart",
    "\u0085\u0085 \ufeff\ufeff x",
    "1-...\u0085's \u0085't", "!\ufeff's \ufeff'll", " \ufeff 's",
    "zero\x00 control\x01\x1f\x7f",
    "snake_case camelCase kebab-case C++ x!=y && z||w -> <= ...",
    "<|endoftext|>",
    "a<|endoftext|>b <|endoftext|> c",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|><|im_start|>  <|im_end|>  <|im_en",
    "<s>x</s> <unk> <0x41> <0x0A>",
    "<tool_call>\n{\"a\": 1}\n</tool_call>",
    "x <|strip|> y<|strip|>\n z",
    "<word> subword<word> <word>s a <word>.",
    "CAFÉ <|É|> cafe\u0301 <|E\u0301|>",
    "\U0001d49c\U00020000\U0010ffff \ufffd",
    "the quick brown fox jumps over the lazy dog",
    "def f(x):\n    return x  # comment\n\n\n\tif x:\n",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "▁underscore ▁▁ Ġ Ċ",
    "don’t “quote” – dash… €5 £6",
    "\n", "\r\n", "\t\t\t", "'", "''s", " 's", "-", "\\", "e\u0301",
]

ODD_TOKEN = "▁ ok"

LINES = [text for text in STRINGS if text.isascii() and "<" not in text] * 3 + [
    "the cat sat on the mat, and the dog sat on the log; they're not the same as the others",
    "import numpy as np\nfor i in range(10):\n    print(i)",
    "café naïve über", "hello hello world world, 2024 2025 100",
]


def special(id, content, **flags):
    return {"id": id, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": True, **flags}


def byte_level():
    """In the manner of Llama 3."""
    regex = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
             r"|\s*[\r\n]+|\s+(?!\S)|\s+")
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.train_from_iterator(LINES, trainers.BpeTrainer(
        vocab_size=330, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    model = json.loads(trained.to_str())["model"]
    # Whole words without the merges that lead to them: only ignore_merges finds these.
    # And one token with characters that stand for no byte.
    for word in ["Ġjumps", "hello", ODD_TOKEN]:
        model["vocab"].setdefault(word, len(model["vocab"]))
    first = len(model["vocab"])
    added = [special(first, "<|begin|>"), special(first + 1, "<|endoftext|>"), special(first + 2, "<|im_start|>"),
             special(first + 3, "<|im_end|>"), special(first + 4, "<|strip|>", lstrip=True, rstrip=True),
             special(first + 5, "<word>", single_word=True, special=False, normalized=True),
             special(first + 6, "<|\u00c9|>", special=False, normalized=True)]
    bos = {"SpecialToken": {"id": "<|begin|>", "type_id": 0}}
    sequence = {"Sequence": {"id": "A", "type_id": 0}}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]},
        "post_processor": {"type": "Sequence", "processors": [
            {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
            {"type": "TemplateProcessing", "single": [bos, sequence],
             "pair": [bos, sequence, {"SpecialToken": {"id": "<|begin|>", "type_id": 1}},
                      {"Sequence": {"id": "B", "type_id": 1}}],
             "special_tokens": {"<|begin|>": {"id": "<|begin|>", "ids": [first], "tokens": ["<|begin|>"]}}}]},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {**model, "ignore_merges": True},
    }


def byte_fallback():
    """In the manner of Llama 2."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(LINES, trainers.BpeTrainer(vocab_size=170, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    names = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    pieces = [piece for piece in model["vocab"] if piece not in ("\n", "\t")]
    merges = [pair for pair in model["merges"] if "\n" not in pair[0] + pair[1] and "\t" not in pair[0] + pair[1]]
    pieces = [piece for piece in pieces if "\n" not in piece and "\t" not in piece]
    vocab = {name: id for id, name in enumerate(names + pieces)}
    bos = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    sequence = {"Sequence": {"id": "A", "type_id": 0}}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": None,
        "post_processor": {"type": "TemplateProcessing", "single": [bos, sequence], "pair": [bos, sequence],
                           "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {**model, "vocab": vocab, "merges": merges, "unk_token": "<unk>", "fuse_unk": True,
                  "byte_fallback": True},
    }


def vectors(tokenizer):
    """What the library gives for every string, and for ids that no text gives."""
    size = tokenizer.get_vocab_size()
    draw = random.Random(size)
    ids = [tokenizer.encode(text).ids for text in STRINGS]
    random_ids = [[draw.randrange(size) for _ in range(8)] for _ in range(12)]
    # Cut inside emoji and Hebrew: broken UTF-8 at the end and at the start.
    cut = [ids[11][:k] for k in range(1, min(9, len(ids[11])))] + [ids[12][k:k + 5] for k in range(1, 6)]
    if (odd := tokenizer.token_to_id(ODD_TOKEN)) is not None:
        cut.append([ids[2][0], odd, ids[11][1]])
    decode = lambda ids, skip: tokenizer.decode(ids, skip_special_tokens=skip)
    return {
        "ids": ids,
        "decoded": {i: text for i, text in enumerate(decode(x, False) for x in ids) if text != STRINGS[i]},
        "skipped": {i: text for i, text in enumerate(decode(x, True) for x in ids) if text != STRINGS[i]},
        "broken": [[x, decode(x, False), decode(x, True)] for x in random_ids + cut],
    }


def main(shared):
    result = {"versions": {"tokenizers": tokenizers_version, "transformers": transformers_version},
              "strings": STRINGS, "trained": {}, "tokenizers": {}}
    metaspace = byte_fallback()
    metaspace["normalizer"] = None
    metaspace["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    for name, trained in {"byte_level": byte_level(), "byte_fallback": byte_fallback(),
                          "metaspace": metaspace}.items():
        kept = trained if name != "metaspace" else {"base": "byte_fallback", "normalizer": None,
                                                    "pre_tokenizer": trained["pre_tokenizer"]}
        result["trained"][name] = {"tokenizer": kept,
                                   **vectors(Tokenizer.from_str(json.dumps(trained, ensure_ascii=False)))}
    for file in ["tokenizers/gpt2/tokenizer.json", "tokenizers/minimind-6400/tokenizer.json",
                 "tokenizers/tiny-bpe-torchtune/tiny_bpe_tokenizer.json", "models/stories260K/tokenizer.json"]:
        result["tokenizers"][file] = vectors(Tokenizer.from_file(str(shared / file)))
    for folder in ["tokenizers/qwen2.5-0.5b-instruct", "weights/tiny-gpt2-lm-buddy"]:
        result["tokenizers"][folder] = vectors(AutoTokenizer.from_pretrained(shared / folder).backend_tokenizer)
    json.dump(result, sys.stdout, ensure_ascii=False, separators=(",", ":"))
    print()


main(Path(sys.argv[1]))
