import pytest
from generation_oracle import rows_with_padding, t5

from mainspring.generation.options import GenerationOptions
from mainspring.generation.search import generate, stream


def decode(ids: list[int]) -> str:
    """Each token is a letter: two letters may only meet across tokens."""
    return "".join(chr(ord("A") + i) for i in ids)


@pytest.mark.parametrize("beams", (1, 3))
def test_rows_end_at_a_stop_string_of_their_own(beams):
    _, bundle = t5("plain")
    ids, mask = rows_with_padding(24, 13, 6)

    def run(**options):
        merged = GenerationOptions.merge(
            bundle.generation, num_beams=beams, max_new_tokens=12, **options
        )
        return generate(bundle.model, ids, mask, merged, decode=decode)

    free = run(eos_token_id=16)
    row = next(r for r, stop in enumerate(free.stops) if stop == "length")
    begin = 3 if beams == 1 else 0  # a beam search may go another way when it is stopped later
    stop = decode(free.new_ids(row)[begin : begin + 2])  # a string made of two tokens
    out = run(eos_token_id=16, stop_strings=[stop, "no such text"], length_penalty=-2.0)
    assert out.stops[row] == "stop" and out.tokens[row] <= begin + 2
    for r, reason in enumerate(out.stops):
        text = decode(out.new_ids(r))
        assert (stop in text) == (reason == "stop")
        if reason == "stop":
            assert text.endswith(stop) and text.count(stop) == 1
        elif beams == 1:
            assert out.new_ids(r) == free.new_ids(r)


def test_a_stream_ends_at_a_stop_string():
    _, bundle = t5("plain")
    ids, mask = rows_with_padding(1, 13, 6)
    merged = GenerationOptions.merge(bundle.generation, eos_token_id=None, max_new_tokens=12)
    free = list(stream(bundle.model, ids, mask, merged))
    stop = decode(free[2:4])
    merged = GenerationOptions.merge(
        bundle.generation, eos_token_id=None, max_new_tokens=12, stop_strings=stop
    )
    cut = list(stream(bundle.model, ids, mask, merged, decode=decode))
    assert cut == free[: len(cut)] and decode(cut).endswith(stop) and len(cut) <= 4
