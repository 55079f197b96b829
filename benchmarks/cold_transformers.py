"""The least one writes to get a summary from transformers.

python cold_transformers.py FOLDER PRECISION NEW_TOKENS TEXT
"""

import sys

import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

folder, precision, new_tokens, text = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=getattr(torch, precision))
inputs = tokenizer(text, return_tensors="pt")
made = model.generate(
    input_ids=inputs["input_ids"],
    attention_mask=inputs["attention_mask"],
    max_new_tokens=int(new_tokens),
)
print(tokenizer.decode(made[0], skip_special_tokens=True), flush=True)
