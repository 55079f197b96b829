import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.generation.top import CHUNK, argmax, top_k


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(
    st.integers(1, 4),
    st.integers(1, 40 * CHUNK),
    st.integers(1, 12),
    st.integers(0, 1000),
    st.sampled_from((torch.float32, torch.bfloat16)),
)
def test_largest_entries_are_torchs(rows, width, k, seed, dtype):
    generator = torch.Generator().manual_seed(seed)
    # Distinct values, and hidden ones, so that there is one right answer.
    x = torch.stack([torch.randperm(width, generator=generator) for _ in range(rows)])
    x = (x % 250).to(dtype) if dtype == torch.bfloat16 else x.to(dtype)
    x[:, : width // 3] = -torch.inf
    k = min(k, width)
    values, places = top_k(x, k)
    assert torch.equal(values, x.float().topk(k).values)
    assert torch.equal(x.float().gather(1, places), values)
    assert all(len(set(row)) == k for row in places.tolist())
    assert torch.equal(x.float().gather(1, argmax(x)[:, None]), x.float().amax(1, keepdim=True))


def test_the_first_of_equal_entries_is_taken():
    x = torch.zeros(2, 1000)
    x[0, [130, 131, 700]] = 1.0
    assert argmax(x).tolist() == [130, 0]
