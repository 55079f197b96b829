import pytest
from transformers import GenerationConfig

from mainspring import events
from mainspring.errors import BadOption
from mainspring.generation.options import (
    FIELDS,
    NO_EFFECT,
    UNSUPPORTED,
    GenerationOptions,
    generation_keys,
)

merge = GenerationOptions.merge


def test_given_options_win_over_the_file_and_the_file_over_the_defaults():
    options = merge({"num_beams": 4, "length_penalty": 2.0}, num_beams=2)
    assert (options.num_beams, options.length_penalty, options.top_k) == (2, 2.0, 50)


def test_lists_and_single_ids_are_read_alike():
    assert merge({"eos_token_id": 1}).eos_ids == (1,)
    assert merge({"eos_token_id": [1, 2]}).eos_ids == (1, 2)
    assert merge({"bad_words_ids": [[1], [2, 3]]}).bad_words_ids == ((1,), (2, 3))
    assert merge({}, sequence_bias={(1, 2): 0.5}) == merge({}, sequence_bias=[[[1, 2], 0.5]])
    assert hash(merge({"eos_token_id": [1, 2]}))


def test_none_switches_off_or_means_the_default():
    config = {"eos_token_id": 1, "top_k": 10, "num_beams": 4}
    options = merge(config, eos_token_id=None, top_k=None, num_beams=None)
    assert (options.eos_ids, options.top_k, options.num_beams) == ((), None, 1)
    assert merge({"top_k": None, "eos_token_id": None}).top_k == 50


def test_padding_is_the_first_end_where_there_is_none():
    assert merge({"eos_token_id": [5, 6]}).pad_id == 5
    assert merge({"eos_token_id": [5, 6], "pad_token_id": 0}).pad_id == 0
    assert merge({}).pad_id is None


def test_every_key_that_transformers_writes_is_known():
    """The whole table of `transformers`' own config: supported, refused by name, or harmless."""
    keys = {key for key in GenerationConfig().to_dict() if not key.startswith("_original")}
    assert keys <= FIELDS.keys() | UNSUPPORTED.keys() | NO_EFFECT
    assert merge(GenerationConfig(num_beams=3, eos_token_id=1).to_dict()).num_beams == 3


def test_defaults_are_those_of_transformers():
    for key, value in GenerationConfig._get_default_generation_params().items():
        if key in FIELDS and key != "max_length":
            assert getattr(merge({}), key) == value, key
        elif key in UNSUPPORTED:
            assert UNSUPPORTED[key] == value, key
    assert merge({}).limits(3) == (23, 0)


def test_lengths():
    assert merge({}, max_length=9).limits(3) == (9, 0)
    assert merge({}, max_new_tokens=9, min_new_tokens=2).limits(3) == (12, 5)
    assert merge({}, min_length=4).limits(1) == (21, 4)
    heard = []
    with events.listening(heard.append):
        assert merge({"max_new_tokens": 5}, max_length=9).limits(1) == (6, 0)
    assert "`max_new_tokens` = 5 decides" in heard[0].text


@pytest.mark.parametrize(
    ("options", "message"),
    (
        ({"num_beam": 3}, "unknown generation option `num_beam`; did you mean `num_beams`"),
        ({"num_beams": 0}, "`num_beams` must be 1 or more, and is 0"),
        ({"num_beams": 2.5}, "`num_beams` must be a whole number"),
        ({"num_beams": True}, "`num_beams` must be a whole number"),
        ({"max_new_tokens": 0}, "`max_new_tokens` must be 1 or more"),
        ({"temperature": 0.0}, "for greedy decoding use `do_sample=False`"),
        ({"top_p": 1.5}, "`top_p` must be between 0 and 1"),
        ({"min_p": -0.1}, "`min_p` must be between 0 and 1"),
        ({"top_p": "0.9"}, "`top_p` must be a number"),
        ({"repetition_penalty": 0}, "`repetition_penalty` must be above 0"),
        ({"early_stopping": "always"}, "`early_stopping` must be true, false or"),
        ({"early_stopping": 1}, "`early_stopping` must be true, false or"),
        ({"do_sample": "yes"}, "`do_sample` must be true or false"),
        ({"eos_token_id": -1}, "`eos_token_id` must be a token id or several"),
        ({"eos_token_id": "</s>"}, "`eos_token_id` must be a token id or several"),
        ({"bad_words_ids": [[]]}, "`bad_words_ids` must be lists of token ids"),
        ({"bad_words_ids": [3]}, "`bad_words_ids` must be lists of token ids"),
        ({"num_beams": 2, "num_return_sequences": 3}, "at most as many sequences as it has beams"),
        ({"num_return_sequences": 2}, "add `num_beams` or `do_sample=True`"),
        ({"num_beam_groups": 3}, "`num_beam_groups` = 3 changes what is generated"),
        ({"penalty_alpha": 0.6}, "`penalty_alpha` = 0.6 changes what is generated"),
    ),
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(BadOption) as error:
        merge({}, **options)
    assert message in str(error.value)


def test_bad_keys_of_the_file_name_the_file():
    with pytest.raises(BadOption, match=r"key in generation_config.json `max_lenght`.*max_length"):
        merge({"max_lenght": 3})
    with pytest.raises(BadOption, match=r"generation_config.json: `typical_p` = 0.2"):
        merge({"typical_p": 0.2, "do_sample": True})
    with pytest.raises(BadOption, match=r"generation_config.json: `guidance_scale` = 3"):
        merge({"guidance_scale": 3})
    assert merge({"typical_p": 1.0, "use_cache": False, "transformers_version": "4.1"}) == merge({})


def test_what_only_sampling_reads_is_no_matter_without_it():
    assert merge({"typical_p": 0.9, "epsilon_cutoff": 0.3, "temperature": 0.0}) == merge({})
    with pytest.raises(BadOption, match="`temperature` must be above 0"):
        merge({"temperature": 0.0, "do_sample": True})


def test_old_configs_hold_generation_keys():
    config = {"d_model": 8, "eos_token_id": 2, "num_beams": 4, "forced_bos_token_id": None}
    assert generation_keys(config) == {"eos_token_id": 2, "num_beams": 4}
