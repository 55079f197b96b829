"""The lm-eval harness (EleutherAI) on a Mainspring model.

From the command line, with all of the harness's own options:

    python -m mainspring.harness --model mainspring --model_args model=runs/chat --tasks arc_easy

From Python:

    lm_eval.simple_evaluate(Harness("runs/chat"), tasks=["arc_easy"])

The likelihoods are those of `formulations.likelihood`, the texts those of `generation`.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import torch

from mainspring.checkpoints.bundle import Bundle, load
from mainspring.compute.devices import choose_device
from mainspring.compute.precision import ready
from mainspring.errors import BadOption, MainspringError, Mismatch, Missing
from mainspring.extras import HARNESS
from mainspring.formulations import IGNORED, EncodedRow, causal, special_ids
from mainspring.formulations.inputs import in_batches, kept, padded
from mainspring.formulations.likelihood import continued, nats, rolling, start_id
from mainspring.formulations.prediction import tokenizer_of
from mainspring.formulations.sequence_to_sequence import end_id
from mainspring.generation.options import GenerationOptions
from mainspring.generation.search import generate


def _end(error: MainspringError) -> NoReturn:
    """Ends the process as the `mainspring` command does where something is wrong."""
    sys.stderr.write(f"error: {error}\n")
    sys.exit(error.exit_code)


try:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
except ModuleNotFoundError as error:
    missing = Missing(f"{HARNESS.what} a package ({error.name}): {HARNESS.command}")
    if __name__ == "__main__":
        _end(missing)
    raise missing from None

LENGTH, WRITTEN = 2048, 256  # tokens, where nobody says any


@register_model("mainspring")
class Harness(TemplateLM):
    """A decoder-only model as the harness sees one.

    `max_length` bounds context and continuation together, `max_gen_toks` what is written where the
    task does not say, `batch_tokens` the tokens of a batch. The other arguments are the harness's
    own way to say sizes and are not needed.
    """

    backend = "causal"

    def __init__(
        self,
        model: str | Bundle,
        *,
        precision: str = "auto",
        device: str | None = None,
        max_length: int = LENGTH,
        max_gen_toks: int = WRITTEN,
        batch_tokens: int = 8192,
        batch_size: object = None,
        max_batch_size: object = None,
    ):
        super().__init__()
        self.name = model if isinstance(model, str) else "bundle"
        self.bundle = load(model) if isinstance(model, str) else model
        lack = causal.lacks(self.bundle.spec)
        if lack is not None:
            raise Mismatch(f"the harness scores decoder-only models: this one lacks {lack}")
        self.words = tokenizer_of(self.bundle)
        # The harness's command line says cuda:0 where nobody says anything.
        named = "auto" if device is None or "cuda" in device else device
        self.place = choose_device(named)
        ready(self.bundle.model, precision, named)
        self.max_length, self.max_gen_toks = int(max_length), int(max_gen_toks)
        self.batch_tokens = int(batch_tokens)

    # -- what the harness asks of every model ------------------------------------------------------

    @property
    def eot_token_id(self) -> int:
        return end_id(self.words)

    @property
    def prefix_token_id(self) -> int:
        return start_id(self.words)

    @property
    def device(self) -> torch.device:
        return self.place

    @property
    def tokenizer_name(self) -> str:
        return self.name.replace("/", "__")

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """As the harness's own model does: with the tokens that the tokenizer puts before a text,
        unless it is told otherwise or they are there already."""
        del kwargs
        before, _ = self.words.frame
        if add_special_tokens is None:
            begins = self.words.decode(before, skip_special=False)
            add_special_tokens = not begins or not string.startswith(begins)
        ids = self.words.encode(string, special=False)
        return [*before, *ids] if add_special_tokens else ids

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        return self.words.chat_template if chat_template else None

    def apply_chat_template(
        self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True
    ) -> str:
        return self.words.chat(chat_history, answer=add_generation_prompt)

    # -- likelihoods -------------------------------------------------------------------------------

    def loglikelihood_rolling(
        self, requests: "list[Instance]", disable_tqdm: bool = False
    ) -> list[float]:
        """The log-likelihood of each text, in nats."""
        del disable_tqdm
        windows = [
            rolling(self.tok_encode(request.args[0]), self.prefix_token_id, self.max_length)
            for request in requests
        ]
        losses = nats(
            self.bundle,
            causal.FORMULATION,
            (window for row in windows for window in row),
            self.batch_tokens,
        )
        return [-sum(next(losses) for _ in row) for row in windows]

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        """(log-likelihood of the continuation in nats, whether greedy decoding would write it)."""
        del kwargs
        examples = [
            (number, continued(context, ids, self.max_length))
            for number, (_, context, ids) in enumerate(requests)
        ]
        found = [(0.0, True)] * len(requests)
        for batch in in_batches(examples, lambda item: len(item[1].source), self.batch_tokens):
            scored = self._scored([example for _, example in batch])
            for (number, _), pair in zip(batch, scored, strict=True):
                found[number] = pair
        return found

    @torch.inference_mode()
    def _scored(self, examples: Sequence[EncodedRow]) -> list[tuple[float, bool]]:
        ids = special_ids(self.words, self.bundle.config, self.bundle.spec)
        batch = causal.collate(examples, ids, 0, 1).to(self.place)
        hidden_BSD = self.bundle.model.decode(batch.source_BS)
        learnt_BS = batch.labels_BT != IGNORED
        labels_N = batch.labels_BT[learnt_BS]
        logits_NV = self.bundle.model.read("vocabulary", hidden_BSD[learnt_BS][None])[0].float()
        scores_N = logits_NV.log_softmax(-1).gather(1, labels_N[:, None])[:, 0]
        likeliest_N = logits_NV.argmax(-1) == labels_N
        counts = learnt_BS.sum(1).tolist()
        return [
            (float(scores.sum()), bool(likeliest.all()))
            for scores, likeliest in zip(
                scores_N.split(counts), likeliest_N.split(counts), strict=True
            )
        ]

    # -- texts -------------------------------------------------------------------------------------

    def generate_until(self, requests: "list[Instance]", disable_tqdm: bool = False) -> list[str]:
        """What the model writes to each context, up to the first of the strings that end it."""
        del disable_tqdm
        groups: dict[str, list[tuple[int, str]]] = {}
        asked: dict[str, Mapping[str, Any]] = {}
        for number, request in enumerate(requests):
            context, options = request.args
            groups.setdefault(repr(options), []).append((number, context))
            asked[repr(options)] = options
        texts = [""] * len(requests)
        for key, members in groups.items():
            options, until = self._options(asked[key])
            room = self.max_length - (options.max_new_tokens or 0)
            if room < 1:
                raise BadOption(
                    f"{options.max_new_tokens} tokens to write leave no room for a context within "
                    f"{self.max_length}; give max_length=… in --model_args"
                )
            rows = [
                (n, self.tok_encode(context)[-room:] or [self.prefix_token_id])
                for n, context in members
            ]
            for batch in in_batches(rows, lambda row: len(row[1]), self.batch_tokens):
                for (number, _), text in zip(batch, self._written(batch, options), strict=True):
                    texts[number] = _until(text, until)
        return texts

    def _options(self, given: Mapping[str, Any]) -> tuple[GenerationOptions, list[str]]:
        """The harness's names for options are those of transformers, but for two."""
        options = dict(given)
        until = options.pop("until", None) or []
        until = [until] if isinstance(until, str) else list(until)
        longest = options.pop("max_gen_toks", None) or options.pop("max_new_tokens", None)
        if not options.get("temperature"):
            options.pop("temperature", None)
            options["do_sample"] = False
        stops = {"stop_strings": tuple(until)} if until else {}
        written = {"max_new_tokens": int(longest or self.max_gen_toks), **options, **stops}
        return GenerationOptions.merge(self.bundle.generation, **written), until

    def _written(
        self, batch: Sequence[tuple[int, list[int]]], options: GenerationOptions
    ) -> list[str]:
        rows = [ids for _, ids in batch]
        pad = 0 if self.words.pad_id is None else self.words.pad_id
        ids_BS = padded(rows, pad, 1, left=True)
        keep_BS = kept(rows, ids_BS.shape[1], left=True)
        mask = None if keep_BS is None else keep_BS.long().to(self.place)
        if mask is None:
            mask = torch.ones_like(ids_BS).to(self.place)
        made = generate(
            self.bundle.model, ids_BS.to(self.place), mask, options, decode=self.words.decode
        )
        return [self.words.decode(made.new_ids(row)) for row in range(len(rows))]


def _until(text: str, stops: Sequence[str]) -> str:
    """The text before the first of `stops`."""
    ends = [at for stop in stops if stop and (at := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    try:
        cli_evaluate()
    except MainspringError as error:
        _end(error)
