"""Our own kernels in C, for Intel CPUs with AMX: built once on this machine, by its C compiler.

    kernels.c    packed products for any number of rows, attention, norms, gates, sums
    library.py   compiles it into the cache folder, loads it, checks it, calls it
    parts.py     what takes the places of the core's parts and of those in torch's operators

Where anything is missing (the CPU's instructions, Linux, a compiler) nothing here is used, and the
parts in torch's operators serve: `library.why_not()` says what is missing.
"""
