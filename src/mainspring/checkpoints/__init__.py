"""Checkpoint folders: finding them, opening them, saving what `transformers` opens too.

locate -> config (which family is it?) -> bundle (model, tokenizer, generation settings) -> card
"""
