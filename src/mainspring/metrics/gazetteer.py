"""What training data named, to be looked up again: the baseline of entities and of triples.

It is kept with a model as hashes, so that a model's folder does not list the names in its training
data for whoever opens it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b

MOST, LONGEST = 20_000, 12  # entries kept, words in a name
DIGEST = 6  # bytes of a name
LETTERS = 2 * DIGEST


def digest(name: str) -> str:
    """The hash of a name, of `LETTERS` letters, whatever blanks it holds."""
    plain = " ".join(name.split()).encode("utf-8", "replace")
    return blake2b(plain, digest_size=DIGEST).hexdigest()


def pack(entries: Iterable[tuple[str, str]]) -> dict[str, str]:
    """From (digests, label) the digests of each label in one string.

    What has several labels has its commonest; the commonest entries are kept.
    """
    labels: dict[str, str] = {}
    for (key, label), _ in Counter(entries).most_common():
        if len(labels) < MOST:
            labels.setdefault(key, label)
    packed: dict[str, list[str]] = {}
    for key, label in labels.items():
        packed.setdefault(label, []).append(key)
    return {label: "".join(sorted(keys)) for label, keys in sorted(packed.items())}


def unpack(packed: Mapping[str, str], digests: int = 1) -> dict[str, str]:
    """Digests -> label, where each entry has so many `digests`."""
    return _unpacked(tuple(packed.items()), digests * LETTERS)


@lru_cache(maxsize=4)
def _unpacked(packed: tuple[tuple[str, str], ...], size: int) -> dict[str, str]:
    return {
        keys[at : at + size]: label for label, keys in packed for at in range(0, len(keys), size)
    }


def stretches(words: Sequence[object]) -> Iterator[tuple[int, int]]:
    """(first word, last word + 1) of what may be a name, for each word the longest first."""
    for first in range(len(words)):
        for end in range(min(first + LONGEST, len(words)), first, -1):
            yield first, end
