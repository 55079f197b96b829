"""Our own kernels in C, for Intel CPUs with AMX: built once on this machine, by its C compiler.

    kernels.c    packed products for any number of rows, attention, norms, gates, sums
    step.c       a decoder's step through all layers as one call
    training.c   what training adds: gradients, dropout, losses
    library.py   compiles it into the cache folder, loads it, checks it, calls it
    parts.py     what takes the places of the core's parts and of those in torch's operators
    steps.py     which decoders `step.c` serves, and the call
    panels.py    weights that are multiplied with both ways, for training
    training.py  attention for training

Where anything is missing (the CPU's instructions, Linux, a compiler) nothing here is used, and the
parts in torch's operators serve: `library.why_not()` says what is missing.
"""
