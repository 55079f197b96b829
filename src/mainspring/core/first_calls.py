"""The first call of each of MKL's functions of vectors, made by one thread.

MKL picks the code for sin, exp, log … at the first call of each. Where several threads of torch
make that call together, one of them may be given the code of low accuracy for its part of that one
call (https://github.com/pytorch/pytorch/issues/188792, MKL before 2025): the same command would
then not always write the same. One call with one number comes before; it takes microseconds.
"""

import torch

FUNCTIONS = (  # those that torch gives to MKL
    *(torch.acos, torch.asin, torch.atan, torch.cos, torch.erf, torch.erfc, torch.erfinv),
    *(torch.exp, torch.log, torch.log10, torch.log2, torch.sin, torch.sqrt, torch.tan),
    *(torch.tanh, torch.trunc),
)


def make_first_calls() -> None:
    for dtype in (torch.float32, torch.float64):
        number = torch.full((1,), 0.5, dtype=dtype)
        for function in FUNCTIONS:
            function(number)
