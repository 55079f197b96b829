"""Small tokenizers of each kind, made of a few sentences."""

import unicodedata

from mainspring.checkpoints.tokenizer import Tokenizer, train_tokenizer
from mainspring.families.bert import FAMILY

SAMPLE = [
    "Angela Merkel besucht Paris im Januar, und die Zeitungen schreiben darüber.",
    "我在北京工作，她住在上海。人文大楼的构想 2004 年",
    "Café naïve cafe\u0301 🇩🇪 👩‍👩‍👧 👍🏽 1,000 km",
]


def wordpiece() -> Tokenizer:
    """A tokenizer as BERT's own are: lower case, marks stripped, ideographs apart."""
    import tokenizers
    from tokenizers import models, normalizers, pre_tokenizers

    letters = sorted({c for text in SAMPLE for c in unicodedata.normalize("NFD", text.lower())})
    vocabulary = ["[UNK]", *letters, *(f"##{c}" for c in letters), "merk", "##el", "paris"]
    backend = tokenizers.Tokenizer(
        models.WordPiece(
            vocab={token: i for i, token in enumerate(dict.fromkeys(vocabulary))},
            unk_token="[UNK]",
        )
    )
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return Tokenizer(backend, {"unk": "[UNK]"})


TOKENIZERS = {
    "unigram": train_tokenizer(SAMPLE * 3, 300, "unigram", FAMILY.tokens),
    "byte-bpe": train_tokenizer(SAMPLE * 3, 330, "byte-bpe", FAMILY.tokens),
    "wordpiece": wordpiece(),
}
