"""Decoding: one loop for encoder-decoders and decoder-only models, in the ecosystem's option names.

Read in this order: options, processors, state, search (greedy and sampling), beam.
"""
