"""A small encoder that reads pairs of texts, and questions for it."""

import random
from functools import cache
from pathlib import Path

import tokenizers
import transformers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

import nano

CHARACTERS = (
    "北京上海大学建于年月日是在什么时候谁的了，。？abcdefghijklmnopqrstuvwxyz0123456789.,?!'-😀é"
)


@cache
def backend() -> tokenizers.Tokenizer:
    """WordPiece over nano's words and single characters, as BERT's tokenizers are made."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*special, *nano.WORDS, "who", "where", "is", "the", "in"]
    pieces += [*CHARACTERS, *(f"##{c}" for c in CHARACTERS)]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    made = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(strip_accents=False)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    return made


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend(),
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def config(**changes: object) -> transformers.BertConfig:
    sizes = {
        "vocab_size": backend().get_vocab_size(),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 128,
        "initializer_range": 0.5,
    }
    return transformers.BertConfig(**{**sizes, **changes})


def write_reader(folder: Path, seed: int = 0) -> transformers.BertForQuestionAnswering:
    """A random reader, saved with its tokenizer; what transformers makes of it."""
    transformers.set_seed(seed)
    theirs = transformers.BertForQuestionAnswering(config()).eval()
    theirs.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return theirs


def rows(count: int, seed: int = 0, *, unanswerable: float = 0.0) -> list[dict]:
    """Where things are: "The river is quiet. The garden is in copper.", asked for the garden; or
    for one of which no place is told."""
    draw = random.Random(seed)
    half = len(nano.WORDS) // 2
    things, places = nano.WORDS[:half], nano.WORDS[half:]
    made = []
    for number in range(count):
        told, *others = draw.sample(things, 3)
        place, answered = draw.choice(places), draw.random() >= unanswerable
        facts = [f"The {told} is in {place}." if answered else f"The {told} is early."]
        facts += [f"The {thing} is quiet." for thing in others]
        draw.shuffle(facts)
        context = " ".join(facts)
        answers = [{"text": place, "start": context.index(place)}] if answered else []
        row = {"id": str(number), "context": context, "question": f"Where is the {told}?"}
        made.append({**row, "answers": answers})
    return made
