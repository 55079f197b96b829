"""How speech is to be written down: language, task, timestamps, and when to try again.

The names are those of transformers' `generate` for Whisper, and so are the meanings. A checkpoint's
`generation_config.json` says which tokens stand for what.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mainspring import languages
from mainspring.errors import BadOption
from mainspring.generation.options import GenerationOptions, as_ids

TASKS = ("transcribe", "translate")

# Keys of generation_config.json that are not options: how words could be aligned with the sound.
IGNORED = frozenset({"alignment_heads", "median_filter_width", "lang_ids"})


@dataclass(frozen=True)
class SpeechOptions:
    """What is written of speech.

    `language` is a code ("de", "<|de|>") or an English name, one for all recordings or one each;
    None lets the model find out. `task` is "transcribe" or "translate" (into English); None leaves
    it to the checkpoint. Recordings longer than a window always have timestamps.

    `temperature` may be several, tried in order: where what was written compresses better than
    `compression_ratio_threshold` (it repeats itself), or is on average less likely than
    `logprob_threshold` (nats), the window is written anew at the next one. 0 is greedy, or the
    beam search that the other options ask for. A window that is so unlikely and at the same time
    no speech with a probability above `no_speech_threshold` is passed over.
    `condition_on_prev_tokens` lets each window see what was written before.
    """

    language: str | tuple[str, ...] | None = None
    task: str | None = None
    return_timestamps: bool = False
    temperature: float | tuple[float, ...] = 0.0
    compression_ratio_threshold: float | None = None
    logprob_threshold: float | None = None
    no_speech_threshold: float | None = None
    condition_on_prev_tokens: bool = False
    # what the checkpoint says of its tokens
    is_multilingual: bool | None = None
    lang_to_id: Mapping[str, int] = field(default_factory=dict)
    task_to_id: Mapping[str, int] = field(default_factory=dict)
    no_timestamps_token_id: int | None = None
    max_initial_timestamp_index: int | None = None
    prev_sot_token_id: int | None = None
    forced_decoder_ids: tuple[tuple[int, int | None], ...] = ()

    def __post_init__(self) -> None:
        if self.task is not None and self.task not in TASKS:
            raise BadOption.unknown("task of speech", self.task, TASKS)
        if self.is_multilingual is False and not (self.task is self.language is None):
            raise BadOption(
                "this model knows English only: it takes no `language` and no `task` of speech"
            )
        if self.task is not None and self.task not in self.task_to_id:
            raise BadOption(f"generation_config.json names no token for `{self.task}`")
        if self.return_timestamps and self.no_timestamps_token_id is None:
            raise BadOption(
                "generation_config.json names no `no_timestamps_token_id`, so timestamps cannot "
                "be told from text"
            )
        if self.no_speech_threshold is not None and self.logprob_threshold is None:
            raise BadOption("`no_speech_threshold` needs a `logprob_threshold` beside it")
        if not self.temperatures or min(self.temperatures) < 0:
            raise BadOption(f"`temperature` must be 0 or more, and is {self.temperature!r}")

    @property
    def temperatures(self) -> tuple[float, ...]:
        several = self.temperature
        return several if isinstance(several, tuple) else (several,)

    @property
    def first_timestamp(self) -> int | None:
        """The token of time 0."""
        marker = self.no_timestamps_token_id
        return None if marker is None else marker + 1

    def code(self, language: int) -> str:
        """The code of the language that a token stands for: "de"."""
        return next(t for t, i in self.lang_to_id.items() if i == language).strip("<|>")

    def language_id(self, language: str) -> int:
        """The token of a language, by its code, its token or its English name."""
        known = {token.strip("<|>"): i for token, i in self.lang_to_id.items()}
        if not known:
            raise BadOption("generation_config.json names no language tokens (`lang_to_id`)")
        wanted = language.strip().lower().strip("<|>")
        named = {name.lower(): code for code, (name, _) in languages.NAMES.items()}
        found = (
            wanted if wanted in known else languages.nearest(named.get(wanted, wanted), [*known])
        )
        if found is None:
            raise BadOption.unknown("language", language, known)
        return known[found]


# All that `SpeechOptions` reads, and what only speech models' files hold besides.
KEYS = frozenset(SpeechOptions.__dataclass_fields__)
FILE_KEYS = (KEYS - {"temperature"}) | IGNORED


def without_speech(generation_config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a `generation_config.json` that mean the same for every model."""
    return {key: value for key, value in generation_config.items() if key not in FILE_KEYS}


def merge(
    generation_config: Mapping[str, Any], given: Mapping[str, Any]
) -> tuple[SpeechOptions, GenerationOptions]:
    """The options `given` over those of a checkpoint: of speech, and of decoding.

    The checkpoint's own `temperature` and `do_sample` play no part: what is drawn by chance is so
    because `temperature` was given. BadOption as in `GenerationOptions.merge`.
    """
    stated = {key: generation_config[key] for key in FILE_KEYS & KEYS if key in generation_config}
    mine = {**stated, **{key: value for key, value in given.items() if key in KEYS}}
    found = {key: _frozen(value) for key, value in mine.items() if value is not None}
    others = {key: value for key, value in given.items() if key not in KEYS}
    if others.pop("do_sample", False) and "temperature" not in found:
        found["temperature"] = 1.0
    plain = without_speech(generation_config)
    for name in ("temperature", "do_sample"):
        plain.pop(name, None)
    return SpeechOptions(**found), GenerationOptions.merge(plain, **others)


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def start_id(options: GenerationOptions) -> int:
    """The token that a transcript begins with."""
    starts = as_ids(options.decoder_start_token_id) or as_ids(options.bos_token_id)
    if not starts:
        raise BadOption("a speech model needs `decoder_start_token_id`")
    return starts[0]


def prompts(
    speech: SpeechOptions,
    options: GenerationOptions,
    rows: int,
    detect: Callable[[], Sequence[int]],
) -> list[list[int]]:
    """What the text of each recording begins with: start, language, task, no timestamps.

    `detect()` finds the languages' tokens where they are neither given nor settled by the
    checkpoint. As in transformers, a task that nobody names has no token where the language was
    detected (the paper's own program writes `<|transcribe|>`), and old checkpoints'
    `forced_decoder_ids` hold where neither language nor task is given.
    """
    begin: list[int | None] = [start_id(options)]
    if speech.task is speech.language is None:
        for place, (at, token) in enumerate(speech.forced_decoder_ids, 1):
            if at != place:
                raise BadOption("`forced_decoder_ids` leaves a place out")
            begin.append(token)
    found: Sequence[int | None] = [None] * rows
    if speech.language is not None:
        given = (speech.language,) * rows if isinstance(speech.language, str) else speech.language
        if len(given) != rows:
            raise BadOption(f"{len(given)} languages are given for {rows} recordings")
        found = [speech.language_id(language) for language in given]
    elif speech.lang_to_id and (len(begin) < 2 or begin[1] is None):
        found = detect()
    return [_prompt(speech, begin, language) for language in found]


def _prompt(speech: SpeechOptions, begin: Sequence[int | None], language: int | None) -> list[int]:
    ids = [*begin]
    if language is not None:
        ids[1:2] = [language]
    tasks = speech.task_to_id
    if speech.task is not None:
        ids.append(tasks[speech.task])
    elif speech.language is not None and tasks and not {*ids} & {*tasks.values()}:
        ids.append(tasks["transcribe"])
    silent = speech.no_timestamps_token_id
    if speech.return_timestamps and ids[-1] == silent:
        ids.pop()
    elif not speech.return_timestamps and silent is not None and ids[-1] != silent:
        ids.append(silent)
    return [token for token in ids if token is not None]
