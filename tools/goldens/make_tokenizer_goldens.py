#!/usr/bin/env python3
"""Writes tests/goldens/tokenizer/: small tokenizers in the exact structures of real ones, and what the libraries that
real checkpoints use make of some texts.

    python3 -m venv VENV && VENV/bin/pip install tokenizers==0.21.4 sentencepiece==0.2.0 transformers==4.55.4 \
        protobuf==5.29.5
    VENV/bin/python tools/goldens/make_tokenizer_goldens.py        # from the repository root

Each golden is a folder: the tokenizer's files as a checkpoint has them, and cases.json:
    text           or "bytes", in hexadecimal, where it is broken UTF-8
    plain          ids, special tokens in the text taken as plain text, nothing added
    special        ids, special tokens recognised; only where that differs from `plain`
    framed_prefix, framed_suffix   what encoding puts around a text
    decoded        the text that `plain` decodes to; only where that is not the text itself; null: not tested
"""
import json
import os
import shutil
import tempfile

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors,
                        trainers)
from transformers import LlamaTokenizer, LlamaTokenizerFast

OUTPUT = "tests/goldens/tokenizer"

CORPUS = [
    "The quick brown fox jumps over the lazy dog. The dog sleeps, and the fox runs away from the other dogs.",
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park.",
    "It's what they're saying: we'll see, I've heard, he'd go, don't! That is the question that matters.",
    "你好，有什么可以帮助你的吗？我是一个语言模型，可以回答你的问题。你好，世界！",
    "今天天气很好，我们去公园散步吧。请问你的名字是什么？我的名字是小明。",
    "def main(argc, argv):\n    for i in range(10):\n        print(i, argv[i])\n    return 0\n",
    "int main() {\n\tstd::vector<int> numbers = {1, 2, 3};\n\tfor (int n : numbers) sum += n;\n\treturn sum;\n}\n",
    "Numbers: 0 1 12 123 1234 12345 3.14159 2024-01-31 10:20:30 and 100,000,000.",
    "Ünïcödé naïve café résumé; Москва слезам не верит; नमस्ते दुनिया; مرحبا بالعالم؟",
] * 3

TEXTS = [
    "", " ", "  ", "   ", "\n", "\n\n\n", "\t", "\r\n", " \n \t \n", "a", " a", "a ", "  a  b   c    ",
    "The quick brown fox jumps over the lazy dog.", " Hello world", "Hello, world!  How are you?", "HELLO WORLD",
    "It's I'm you're WE'LL don't he'D 'tis ''s", "你好，有什么可以帮助你的吗？", "今天天气很好。请问，你叫什么名字？我叫小明！",
    "中文 and English 混合 text，没问题。", "繁體字與罕見字：龘靐齉", "🙂", "I ❤️ 🦙 and 👩‍👩‍👧‍👦 and 🇨🇳!", "é vs e\u0301; ﬁ; Å vs \u212b; 한글 vs \u1112\u1161\u11ab",
    "0123456789 3.14159 1,000,000 v2.0 ½ ² Ⅷ ٣", "def f(x):\n    if x > 0:\n        return x ** 2\n    return -x  # comment\n",
    "for (int i = 0; i < n; ++i) {\n\tsum += a[i] * b[i];\n}\n", "<html><body class=\"x\">&amp;</body></html>",
    "a\u00a0b\u3000c\u2003d\u200be\u180ef\u0085g", "مرحبا بالعالم، كيف الحال؟ ۔", "नमस्ते दुनिया।", "Привет, мир!", "x" * 70,
    "ab" * 40, "   leading and trailing   ", "line one\nline two\n\nline four\r\nline five", "!!!???...,,,;;;:::", "▁ and ▁▁ marks",
    "<0x41><0x0A>", "<unk> <s> </s>", "<s>Hello</s>", "text</s> more</s>", "<|im_start|>user\nHi<|im_end|>\n",
    "<|begin_of_text|>a<|eot_id|>", "half a token <|im_sta", "a <sep> b<sep>c  <sep>", "tools<tool>call</tool>",
    "Human: hi\nAssistant: ", "The end\u2026 really\u3002yes\uff0cno\u3001ok\u060c\u06d4|(a)|",
]
BROKEN = ["ff", "61ff62", "e4bd", "e4bda0e5a5", "f09f98", "c080", "eda080", "e4bda0ff20e5a5bd", "f4908080", "20fe20ff20"]

GPT2_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
LLAMA3_PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
                  r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2_PATTERN = LLAMA3_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")
BLOOM_PATTERN = " ?[^(\\s|[.,!?…。，、।۔،])]+"


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as out:
        out.write(text)


def compact(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def write_cases(name, cases, **head):
    lines = ",\n".join(compact(case) for case in cases)
    fields = "".join("%s:%s,\n" % (compact(k), compact(v)) for k, v in head.items())
    write("%s/%s/cases.json" % (OUTPUT, name), "{" + fields + '"cases":[\n' + lines + "\n]}\n")


def case(text, plain, special, decoded):
    entry = {"text": text, "plain": plain}
    if special != plain:
        entry["special"] = special
    if decoded != text:
        entry["decoded"] = decoded
    return entry


def golden_of_fast(name, tokenizer, config, prefix=(), suffix=()):
    """`tokenizer` of the tokenizers library -> a folder with tokenizer.json, tokenizer_config.json, cases.json."""
    cases = []
    for text in TEXTS:
        tokenizer.encode_special_tokens = True
        plain = tokenizer.encode(text, add_special_tokens=False).ids
        framed = tokenizer.encode(text).ids
        assert framed == list(prefix) + plain + list(suffix), (name, text)
        tokenizer.encode_special_tokens = False
        special = tokenizer.encode(text, add_special_tokens=False).ids
        cases.append(case(text, plain, special, tokenizer.decode(plain, skip_special_tokens=True)))
    saved = json.loads(tokenizer.to_str())
    saved["truncation"] = saved["padding"] = None
    write("%s/%s/tokenizer.json" % (OUTPUT, name), compact(saved) + "\n")
    write("%s/%s/tokenizer_config.json" % (OUTPUT, name), compact(config) + "\n")
    write_cases(name, cases, framed_prefix=list(prefix), framed_suffix=list(suffix))


def train_byte_level(pre_tokenizer, special, vocab=420, normalizer=None, **model):
    tokenizer = Tokenizer(models.BPE(**model))
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=True, trim_offsets=True, use_regex=True)
    trainer = trainers.BpeTrainer(vocab_size=vocab, special_tokens=special, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def edit(tokenizer, change):
    """The tokenizer with its JSON changed, for what the Python classes cannot say."""
    saved = json.loads(tokenizer.to_str())
    change(saved)
    return Tokenizer.from_str(json.dumps(saved))


def string_merges(saved):
    saved["model"]["merges"] = [" ".join(pair) for pair in saved["model"]["merges"]]


def split(pattern):
    return pre_tokenizers.Split(Regex(pattern), behavior="isolated", invert=False)


def byte_level(use_regex=False):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=use_regex)


def make_byte_level():
    gpt2 = train_byte_level(byte_level(use_regex=True), GPT2_SPECIAL[:1])
    gpt2.post_processor = processors.ByteLevel(trim_offsets=False)
    # Merges as files of before 2024 spell them; the loader must read both.
    text_of = json.loads(gpt2.to_str())
    string_merges(text_of)
    golden_of_fast("gpt2", gpt2, {"tokenizer_class": "GPT2Tokenizer", "bos_token": "<|endoftext|>",
                                  "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"})
    write(OUTPUT + "/gpt2/tokenizer.json", compact(text_of) + "\n")

    smollm = train_byte_level(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                                       byte_level(use_regex=True)]), GPT2_SPECIAL)
    golden_of_fast("smollm", smollm, {"tokenizer_class": "GPT2Tokenizer", "bos_token": "<|im_start|>",
                                      "eos_token": "<|im_end|>", "unk_token": "<|endoftext|>"})

    # Llama 3: special tokens after the vocabulary, BOS by a template, whole words without merging.
    llama3 = train_byte_level(pre_tokenizers.Sequence([split(LLAMA3_PATTERN), byte_level()]), [], ignore_merges=True)
    llama3.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
                               "<|eot_id|>"])
    bos = llama3.token_to_id("<|begin_of_text|>")
    llama3.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=True),
        processors.TemplateProcessing(single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A <|begin_of_text|> $B:1",
                                      special_tokens=[("<|begin_of_text|>", bos)])])

    def unreachable_by_merges(saved):  # a piece that only ignore_merges can find
        vocabulary = saved["model"]["vocab"]
        saved["model"]["merges"] = [m for m in saved["model"]["merges"] if "".join(m) != "Ġthe"]
        assert "Ġthe" in vocabulary
    golden_of_fast("llama3", edit(llama3, unreachable_by_merges),
                   {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin_of_text|>",
                    "eos_token": "<|end_of_text|>"}, prefix=[bos])
    write(OUTPUT + "/llama3/generation_config.json",
          compact({"eos_token_id": [llama3.token_to_id("<|end_of_text|>"), llama3.token_to_id("<|eot_id|>")]}) + "\n")

    qwen2 = train_byte_level(pre_tokenizers.Sequence([split(QWEN2_PATTERN), byte_level()]), [],
                             normalizer=normalizers.NFC())
    qwen2.add_special_tokens(GPT2_SPECIAL)
    # Not special: found in any text, with its flags.
    qwen2.add_tokens([AddedToken("<tool>", normalized=False), AddedToken("</tool>", normalized=False),
                      AddedToken("<sep>", lstrip=True, rstrip=True, normalized=False)])
    golden_of_fast("qwen2", qwen2, {"tokenizer_class": "Qwen2Tokenizer", "add_prefix_space": False, "bos_token": None,
                                    "eos_token": {"content": "<|im_end|>", "special": True}})

    bloom = train_byte_level(pre_tokenizers.Sequence([split(BLOOM_PATTERN), byte_level()]),
                             ["<unk>", "<s>", "</s>", "<pad>"])
    golden_of_fast("bloom", bloom, {"tokenizer_class": "BloomTokenizerFast", "padding_side": "left", "bos_token": "<s>",
                                    "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"})


def train_sentencepiece(folder, name, **options):
    corpus = os.path.join(folder, "corpus.txt")
    with open(corpus, "w", encoding="utf-8") as out:
        out.write("\n".join(line for text in CORPUS for line in text.split("\n") if line))
    prefix = os.path.join(folder, name)
    sentencepiece.SentencePieceTrainer.train(input=corpus, model_prefix=prefix, model_type="bpe",
                                             minloglevel=2, num_threads=1, **options)
    return prefix + ".model"


def golden_of_sentencepiece(name, model_path, decodes_alike=True):
    """Special tokens are not tested here: sentencepiece itself never recognises control pieces in a text."""
    shutil.copy(model_path, "%s/%s/tokenizer.model" % (OUTPUT, name))
    processor = sentencepiece.SentencePieceProcessor(model_file=model_path)
    cases = []
    for text in TEXTS:
        ids = processor.encode(text)
        # Two of sentencepiece's habits on decoding are not ours: it writes " \u2047 " for the unknown token (we skip
        # it, as transformers does), and with remove_extra_whitespaces it drops every leading space.
        decoded = processor.decode(ids) if decodes_alike else None
        cases.append(case(text, ids, ids, decoded))
    for broken in BROKEN:
        ids = processor.encode(bytes.fromhex(broken))
        cases.append({"bytes": broken, "plain": ids})
    write_cases(name, cases, framed_prefix=[processor.bos_id()], framed_suffix=[])


def make_sentencepiece():
    llama = dict(vocab_size=640, byte_fallback=True, split_digits=True, normalization_rule_name="identity",
                 add_dummy_prefix=True, remove_extra_whitespaces=False, character_coverage=0.99, unk_surface=" \u2047 ",
                 max_sentencepiece_length=16, allow_whitespace_only_pieces=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("llama_spm", "llama_spm_extended", "spm_rules"):
            os.makedirs(OUTPUT + "/" + name, exist_ok=True)
        path = train_sentencepiece(folder, "llama", **llama)
        golden_of_sentencepiece("llama_spm", path)
        # What converters of 2023 wrote: the ids must come from the model.
        write(OUTPUT + "/llama_spm/tokenizer_config.json",
              compact({"bos_token": "", "eos_token": "", "unk_token": "", "tokenizer_class": "LlamaTokenizer"}) + "\n")

        # Chinese-LLaMA's way of extending: appended pieces, all with score 0, tying with each other.
        model = sentencepiece_model_pb2.ModelProto()
        with open(path, "rb") as file:
            model.ParseFromString(file.read())
        known = {piece.piece for piece in model.pieces}
        for piece in ["你好", "好，", "可以", "帮助", "以帮", "什么", "有什么", "天天", "今天天气", "天气", "aba", "bab", "abab", "▁今天",
                      "ababab", "xx", "xxx", "名字"]:
            if piece not in known:
                model.pieces.add(piece=piece, score=0.0)
        extended = os.path.join(folder, "extended.model")
        with open(extended, "wb") as file:
            file.write(model.SerializeToString())
        golden_of_sentencepiece("llama_spm_extended", extended)

        rules = train_sentencepiece(folder, "rules", vocab_size=330, normalization_rule_name="identity",
                                    remove_extra_whitespaces=True, user_defined_symbols=["<sep>", "ck", "▁x"],
                                    character_coverage=0.98)
        model = sentencepiece_model_pb2.ModelProto()
        with open(rules, "rb") as file:
            model.ParseFromString(file.read())
        for piece in model.pieces:  # unused pieces are taken apart again
            if piece.piece in ("▁the", "ow", "er"):
                piece.type = sentencepiece_model_pb2.ModelProto.SentencePiece.UNUSED
        with open(rules, "wb") as file:
            file.write(model.SerializeToString())
        golden_of_sentencepiece("spm_rules", rules, decodes_alike=False)

        slow_folder = os.path.join(folder, "slow")
        os.makedirs(slow_folder)
        shutil.copy(path, slow_folder + "/tokenizer.model")
        make_llama_fast(slow_folder)


def make_llama_fast(slow_folder):
    """The same vocabulary as transformers converts it to tokenizer.json, the older and the newer way."""
    for name, legacy in (("llama_fast", True), ("llama_fast_metaspace", False)):
        fast = LlamaTokenizerFast(tokenizer_file=None, vocab_file=slow_folder + "/tokenizer.model", legacy=legacy, add_prefix_space=True,
                                  from_slow=True)
        golden_of_fast(name, fast.backend_tokenizer, {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True,
                                                      "add_eos_token": False, "bos_token": "<s>", "eos_token": "</s>",
                                                      "unk_token": "<unk>", "legacy": legacy}, prefix=[1])


def main():
    shutil.rmtree(OUTPUT, ignore_errors=True)
    make_byte_level()
    make_sentencepiece()


if __name__ == "__main__":
    main()
