"""The Transformer: it knows no file format, no model family and no task.

Read in this order: masks, positions, attention, feed_forward, layer, stack, heads, model, cache.

Tensor names end in their shape, one letter an axis, one legend for the whole package:

    B batch    T queries (or target positions)    S keys (or source positions)    D model width
    H heads    K key/value heads    E width of one head    F feed-forward width    V vocabulary

An axis of size 1 is written 1. Boolean masks say True where one may look.
"""

from mainspring.core.first_calls import make_first_calls

make_first_calls()
