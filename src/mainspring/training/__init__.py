"""Training: data, batches, optimizer steps, what happens between them, and going on after a stop.

preparation -> rows -> loop (a generator of steps) <- session (evaluates, keeps, saves, ends)
                                                       fitting puts the pieces together
"""

# What `fit` writes into its folder beside the model; `fitting` has the whole list.
RUN_FILE, SKIPPED_FILE, SPLITS_FILE = "run.json", "skipped.jsonl", "splits.json"
LOCK_FILE = ".lock"
