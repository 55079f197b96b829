"""Prompts and answers on one decoder: what carries loss, and that it is what transformers loses."""

import json
from dataclasses import replace

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

import nano
from mainspring import registry
from mainspring.checkpoints.bundle import Bundle, load
from mainspring.checkpoints.tokenizer import CONFIG, Tokenizer
from mainspring.errors import BadData, Mismatch
from mainspring.formulations import IGNORED, Inference, Limits, Setup, special_ids
from mainspring.formulations.causal import FORMULATION, collate, encode, losses, picture
from mainspring.formulations.prediction import generation_options

lean = settings(max_examples=25, deadline=None, derandomize=True, database=None)

TEMPLATE = (
    "{% for m in messages %}<extra_id_{{ 0 if m.role == 'user' else 1 }}>{{ m.content }}</s>"
    "{% endfor %}{% if add_generation_prompt %}<extra_id_1>{% endif %}"
)
CONFIGS = {
    "llama": {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": 192,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "eos_token_id": 1,
        "bos_token_id": None,
        "pad_token_id": 1,
    },
    "gpt2": {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": 192,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 2,
        "n_positions": 256,
        "eos_token_id": 1,
        "bos_token_id": 1,
    },
}


def chatty() -> Tokenizer:
    plain = nano.tokenizer()
    file = {CONFIG: b'{"chat_template": ' + _quoted(TEMPLATE) + b"}"}
    return Tokenizer(plain.backend, plain.special, file)


def _quoted(text: str) -> bytes:
    return json.dumps(text).encode()


@pytest.fixture(scope="module", params=CONFIGS)
def twins(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Bundle, transformers.PreTrainedModel]:
    """The same weights here and in `transformers`."""
    folder = tmp_path_factory.mktemp("causal")
    config = CONFIGS[request.param]
    torch.manual_seed(0)
    theirs = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(**config)
    )
    theirs.save_pretrained(folder)
    nano.tokenizer().save(folder)
    return load(folder), theirs.eval()


words = st.lists(st.sampled_from(nano.WORDS), min_size=1, max_size=20).map(" ".join)


@lean
@given(st.lists(st.tuples(words, words), min_size=1, max_size=4), st.integers(6, 40))
def test_loss_stands_on_the_answer_and_its_end_alone(
    pairs: list[tuple[str, str]], limit: int
) -> None:
    tokenizer = nano.tokenizer()
    setup = Setup(Limits(limit, limit), "early ", " river")
    rows = [{"text": text, "target": target} for text, target in pairs]
    for row, example in zip(rows, encode(rows, tokenizer, setup), strict=True):
        prompt = tokenizer.encode(f"early {row['text']} river", special=False)
        answer = tokenizer.encode(row["target"], special=False)
        learnt = [i for i, label in enumerate(example.target) if label != IGNORED]
        read = len(example.source) - len(learnt)
        assert learnt == list(range(read, len(example.source)))
        assert [example.source[i] for i in learnt] == [*answer[: limit - 1], tokenizer.eos_id]
        assert read == min(len(prompt), limit)
        assert example.source_lost == len(prompt) - read
        assert example.target_lost == max(0, len(answer) - (limit - 1))
        assert example.source[read - 1] == prompt[-1]  # the cue is never cut off


@lean
@given(st.lists(st.tuples(words, words), min_size=1, max_size=4))
def test_losses_are_those_of_transformers(
    twins: tuple[Bundle, transformers.PreTrainedModel], pairs: list[tuple[str, str]]
) -> None:
    ours, theirs = twins
    tokenizer = ours.tokenizer
    assert tokenizer is not None
    setup = Setup(Limits(64, 32), "", " bridge")
    rows = [{"text": text, "target": target} for text, target in pairs]
    examples = encode(rows, tokenizer, setup)
    batch = collate(examples, special_ids(tokenizer, ours.config, ours.spec), 0, 16)
    assert batch.target_tokens == sum(
        label != IGNORED for example in examples for label in example.target
    )
    assert batch.source_tokens + batch.target_tokens == sum(len(e.source) for e in examples)
    with torch.no_grad():
        nats_B = losses(ours.model, batch)
        alone = []
        for example in examples:
            ids, labels = torch.tensor([example.source]), torch.tensor([example.target])
            count = int((labels != IGNORED).sum())
            alone.append(theirs(ids, labels=labels).loss * count)
    torch.testing.assert_close(nats_B, torch.stack(alone), atol=1e-4, rtol=1e-5)


def test_a_conversation_learns_every_answer_and_nothing_else() -> None:
    tokenizer = chatty()
    messages = [
        {"role": "user", "content": "quiet river"},
        {"role": "assistant", "content": "early market"},
        {"role": "user", "content": "winter"},
        {"role": "assistant", "content": "copper engine"},
    ]
    [example] = encode([{"messages": messages}], tokenizer, Setup(Limits(99, 99)))
    whole = tokenizer.encode(tokenizer.chat(messages, answer=False), special=False)
    assert example.source == whole
    learnt = [i for i, label in enumerate(example.target) if label != IGNORED]
    text = tokenizer.decode([example.source[i] for i in learnt], skip_special=False)
    assert text.replace(" ", "") == "earlymarket</s>copperengine</s>"
    shown = picture(example, tokenizer, Setup(Limits(9, 9)))
    assert shown.count("■") == 2 and shown.startswith("░")


def test_a_long_conversation_keeps_an_answer_and_tells_what_it_lost() -> None:
    tokenizer = chatty()
    messages = [
        {"role": "user", "content": "quiet river " * 20},
        {"role": "assistant", "content": "early market"},
    ]
    whole = tokenizer.encode(tokenizer.chat(messages, answer=False), special=False)
    [example] = encode([{"messages": messages}], tokenizer, Setup(Limits(8, 8)))
    assert example.source == whole[-16:] and example.source_lost == len(whole) - 16
    assert example.target[-1] == tokenizer.eos_id
    [example] = encode([{"messages": messages[::-1] + messages}], tokenizer, Setup(Limits(8, 8)))
    assert example.target[:16].count(IGNORED) < 16 and example.source_lost > 16


def test_a_pair_on_a_chat_model_is_laid_out_by_its_template() -> None:
    tokenizer = chatty()
    [example] = encode(
        [{"text": "quiet river", "target": "winter"}], tokenizer, Setup(Limits(99, 99), "early ")
    )
    text = tokenizer.decode(example.source, skip_special=False)
    assert text.replace(" ", "") == "<extra_id_0>earlyquietriver</s><extra_id_1>winter</s>"


@lean
@given(st.lists(words, min_size=1, max_size=6), st.integers(4, 20))
def test_plain_text_is_cut_into_pieces_and_nothing_is_lost(texts: list[str], limit: int) -> None:
    tokenizer = nano.tokenizer()
    examples = encode([{"text": text} for text in texts], tokenizer, Setup(Limits(limit, 4)))
    eos = tokenizer.eos_id
    whole = [i for text in texts for i in [*tokenizer.encode(text, special=False), eos]]
    joined = [i for example in examples for i in example.source]
    # A last piece of one token has nothing to predict.
    assert joined == (whole if len(whole) % limit != 1 else whole[:-1])
    assert all(len(example.source) <= limit for example in examples)
    assert all(e.target[0] == IGNORED and e.target[1:] == e.source[1:] for e in examples)


def test_prompts_of_unlike_length_are_answered_as_alone(
    twins: tuple[Bundle, transformers.PreTrainedModel],
) -> None:
    """Answers do not depend on company, and are those of transformers."""
    bundle, theirs = twins
    limits = Limits(64, 8)
    options = generation_options(bundle.generation, limits, {})
    how, setup = Inference(options), Setup(limits, "", " bridge")
    rows = [{"text": row["article"]} for row in nano.pairs(5, seed=4)]
    assert FORMULATION.predict is not None
    answers = list(FORMULATION.predict(bundle, rows, setup, how, print, None))
    tokenizer = bundle.tokenizer
    assert tokenizer is not None
    for row, answer in zip(rows, answers, strict=True):
        ids = tokenizer.encode(row["text"] + " bridge", special=False)
        if len(ids) > limits.source:
            assert answer.windows > 1
            continue
        made = theirs.generate(
            torch.tensor([ids]), max_new_tokens=8, do_sample=False, eos_token_id=1, pad_token_id=1
        )
        assert answer.value == tokenizer.decode(made[0, len(ids) :].tolist()).strip()
        assert answer.stop == ("eos" if made[0, -1] == 1 else "length")


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def test_the_next_turn_of_a_conversation_is_that_of_transformers(
    twins: tuple[Bundle, transformers.PreTrainedModel],
) -> None:
    bundle, theirs = replace(twins[0], tokenizer=chatty()), twins[1]
    oracle = transformers.PreTrainedTokenizerFast(
        tokenizer_object=chatty().backend, chat_template=TEMPLATE
    )
    talks = [
        [said("user", "river bridge")],
        [said("user", "old town"), said("assistant", "quiet"), said("user", "and the harbor")],
    ]
    options = generation_options(bundle.generation, Limits(64, 8), {})
    rows = [{"text": "river"}, *({"messages": talk} for talk in talks), {"text": "bridge"}]
    done: list[int] = []
    assert FORMULATION.predict is not None
    setup, how = Setup(Limits(64, 8)), Inference(options)
    made = list(FORMULATION.predict(bundle, rows, setup, how, done.append, None))
    assert done == sorted(done) and done[-1] == len(made) == 4
    for talk, answer in zip(talks, made[1:3], strict=True):
        text = oracle.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
        ids = oracle(text, add_special_tokens=False)["input_ids"]
        wanted = theirs.generate(
            torch.tensor([ids]), max_new_tokens=8, do_sample=False, eos_token_id=1, pad_token_id=1
        )
        assert answer.value == chatty().decode(wanted[0, len(ids) :].tolist()).strip()
        assert (answer.source_tokens, answer.source_tokens_unread) == (len(ids), 0)


def test_a_conversation_that_is_too_long_loses_its_first_turns_or_is_refused(
    twins: tuple[Bundle, transformers.PreTrainedModel],
) -> None:
    bundle = replace(twins[0], tokenizer=chatty())
    last = [said("system", "short"), said("user", "river")]
    long = [last[0], said("user", "old town " * 9), said("assistant", "quiet"), last[1]]
    setup = Setup(Limits(24, 4))

    def answer(talk: list, on_long: str):
        how = Inference(generation_options(bundle.generation, setup.limits, {}), on_long)
        assert FORMULATION.predict is not None
        [made] = FORMULATION.predict(bundle, [{"messages": talk}], setup, how, print, None)
        return made

    assert answer(long, "cut").value == answer(last, "cut").value
    assert answer(long, "cut").source_tokens_unread > 18
    refused = answer(long, "split")
    assert refused.value == "" and "--on-long cut leaves out the first turns" in refused.error
    alone = answer([said("user", "old town " * 20)], "cut")
    assert "its last turn alone is too long" in alone.error and alone.windows == 0


def test_one_conversation_that_the_template_refuses_does_not_stop_the_others(
    twins: tuple[Bundle, transformers.PreTrainedModel],
) -> None:
    plain = nano.tokenizer()
    picky = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}ab"
    tokenizer = Tokenizer(
        plain.backend, plain.special, {CONFIG: b'{"chat_template": ' + _quoted(picky) + b"}"}
    )
    bundle = replace(twins[0], tokenizer=tokenizer)
    setup = Setup(Limits(24, 4))
    how = Inference(generation_options(bundle.generation, setup.limits, {}))
    rows = [{"messages": [said(role, "x")]} for role in ("user", "system", "user")]
    assert FORMULATION.predict is not None
    made = list(FORMULATION.predict(bundle, rows, setup, how, print, None))
    assert [one.error is None for one in made] == [True, False, True]
    assert "no system" in made[1].error and made[1].value == ""
    assert made[0].value == made[2].value


def test_a_model_without_a_template_holds_no_conversation() -> None:
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    with pytest.raises(Mismatch, match="no chat template"):
        encode([{"messages": messages}], nano.tokenizer(), Setup(Limits(9, 9)))


def test_a_template_may_refuse_a_conversation() -> None:
    tokenizer = chatty()
    picky = "{{ raise_exception('roles must alternate') }}"
    refusing = Tokenizer(
        tokenizer.backend,
        tokenizer.special,
        {CONFIG: b'{"chat_template": ' + _quoted(picky) + b"}"},
    )
    with pytest.raises(BadData, match="refuses this conversation: roles must alternate"):
        refusing.chat([{"role": "user", "content": "x"}], answer=True)


def test_only_a_decoder_alone_can_serve() -> None:
    assert FORMULATION.lacks(nano.bundle().spec) == "a decoder alone"
    model = registry.find("families", "llama").spec(CONFIGS["llama"], ())
    assert FORMULATION.lacks(model) is None
    assert FORMULATION.lacks(replace(model, heads=())) == "a vocabulary head"
