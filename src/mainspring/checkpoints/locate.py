"""From the name a person gives to a checkpoint folder: a local one, or one of the hub's."""

import contextvars
import difflib
import threading
from pathlib import Path
from typing import Any

from mainspring.checkpoints.packaged import TABLE, located
from mainspring.errors import Missing, Refused
from mainspring.events import Progress, emit

# What is read of a checkpoint; nothing else is downloaded (no pickles, no code).
WANTED = (
    "config.json",
    "generation_config.json",
    "mainspring.json",
    "preprocessor_config.json",
    "processor_config.json",
    "chat_template.jinja",
    "model.safetensors",
    "model-*-of-*.safetensors",
    "model.safetensors.index.json",
    "adapter_config.json",
    "adapter_model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "spm.model",
    # Older checkpoints', M2M100's and OPUS-MT's, and what sentence encoders are made of.
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "source.spm",
    "target.spm",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "*_*/config.json",
)


def locate(name: str | Path) -> Path:
    """The folder or GGUF file of a checkpoint: `name` itself if it is here, else what `mainspring
    get` fetched by this name, else the hub's, downloaded once into its cache. With
    HF_HUB_OFFLINE=1 only the cache is looked at.

    Missing says where was looked and what to do; Refused where the hub holds pickles only.
    """
    here = Path(name).expanduser()
    if here.is_dir():
        return here
    if here.is_file() and here.suffix == ".gguf":
        return here
    if here.exists():
        part = here.suffix in (".safetensors", ".json")
        hint = "; give the folder that holds it" if part else ""
        raise Missing(f"{here}: not a checkpoint (a folder or a .gguf file){hint}")
    if name in TABLE:
        return located(str(name))
    if isinstance(name, Path) or not _may_be_hub_name(name):
        what = "file" if here.suffix == ".gguf" else "folder"
        raise Missing(f"{here}: no such {what}{_nearest(here)}")
    return _download(name, here)


def _may_be_hub_name(name: str) -> bool:
    """A hub name is "owner/name" or "name", and does not look like a path."""
    parts = name.split("/")
    return (
        not name.endswith(".gguf")
        and len(parts) <= 2
        and all(part and part[0] not in ".~" for part in parts)
    )


def _nearest(folder: Path) -> str:
    """A hint at the folder or GGUF file beside `folder` whose name is most alike."""
    parent = folder.parent
    if not parent.is_dir():
        return f" (and no {parent})"
    found = (entry for entry in parent.iterdir() if entry.is_dir() or entry.suffix == ".gguf")
    names = [entry.name for entry in found]
    near = difflib.get_close_matches(folder.name, names, n=1, cutoff=0.5)
    return f"; did you mean `{parent / near[0]}`?" if near else ""


def _download(name: str, here: Path) -> Path:
    import huggingface_hub
    from huggingface_hub import constants, errors

    def fetch(only_cache: bool) -> Path:
        return Path(
            huggingface_hub.snapshot_download(
                name,
                allow_patterns=list(WANTED),
                local_files_only=only_cache,
                tqdm_class=_progress_class(name),
            )
        )

    absent = f"`{name}`: no such folder here{_nearest(here)}"
    offline = bool(constants.HF_HUB_OFFLINE)
    try:
        folder = fetch(offline)
    except errors.HFValidationError:
        raise Missing(f"{absent}; and it cannot be a hub name") from None
    except errors.GatedRepoError:
        raise Missing(
            f"`{name}` on the hub is gated: accept its terms on its page, then log in with "
            "`hf auth login`"
        ) from None
    except errors.RepositoryNotFoundError:
        raise Missing(
            f"{absent}; and no model of this name on the hub (if it is private, log in with "
            "`hf auth login`)"
        ) from None
    except errors.LocalEntryNotFoundError:
        why = "offline mode is on (HF_HUB_OFFLINE)" if offline else "the hub cannot be reached"
        raise Missing(
            f"{absent}; not in the hub's cache, and {why}. Download it where there is a network "
            f"with `hf download {name}`, and copy the folder or the cache here"
        ) from None
    except (errors.HfHubHTTPError, OSError) as error:
        raise Missing(f"{absent}; downloading it from the hub failed: {error}") from error
    if not list(folder.glob("*.safetensors")) and not offline:
        _explain_no_safetensors(name)
    return folder


def _explain_no_safetensors(name: str) -> None:
    """Refused where the hub has the weights as pickles only; Missing where it has GGUF files, of
    which only the user knows the one to fetch."""
    import huggingface_hub

    files = huggingface_hub.list_repo_files(name)
    pickles = [f for f in files if f.endswith((".bin", ".pt"))]
    stored = [f for f in files if f.endswith(".gguf")]
    if stored:
        raise Missing(
            f"`{name}` on the hub has {len(stored)} GGUF files; fetch the one you want, and name "
            f"that file:\n  hf download {name} {stored[0]} --local-dir ."
        )
    if pickles:
        raise Refused(
            f"`{name}` on the hub has its weights in {pickles[0]} only, a pickle, which can run "
            "code when it is opened. Look for a safetensors version of it (often under the page's "
            "pull requests), or convert it once, where you trust it"
        )


def _progress_class(name: str) -> type:
    """A progress bar for the hub's client that prints nothing and emits events.

    The client keeps several bars (received, written) and moves them from its own threads, which
    do not know who listens here.
    """
    from huggingface_hub.utils.tqdm import tqdm

    here, lock = contextvars.copy_context(), threading.Lock()
    most = {"done": 0, "total": 0}

    class Bar(tqdm):
        def __init__(self, *args: Any, **options: Any):
            super().__init__(*args, **{**options, "disable": True})
            self.in_bytes = options.get("unit") == "B"

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            if self.in_bytes:
                with lock:
                    most["done"] = max(most["done"], int(self.n))
                    most["total"] = max(most["total"], int(self.total or 0))
                    bar = Progress(f"download {name}", most["done"], most["total"], "bytes")
                    here.run(emit, bar)

    return Bar
