"""Finding a checkpoint: folders here, names on the hub (its client is replaced)."""

from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants, errors

from mainspring import events
from mainspring.checkpoints.bundle import Bundle, load
from mainspring.checkpoints.locate import WANTED, locate
from mainspring.errors import Missing, Refused


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict:
    """What the hub's client is asked, and what it does: set "answer" to a folder or an error."""
    seen: dict = {"calls": []}

    def download(name: str, **options: object) -> str:
        seen["calls"].append((name, options))
        if isinstance(seen["answer"], Exception):
            raise seen["answer"]
        return str(seen["answer"])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return seen


def test_a_folder_here_is_taken_as_it_is(tmp_path: Path, hub: dict) -> None:
    (tmp_path / "google-t5" / "t5-small").mkdir(parents=True)
    assert locate("google-t5/t5-small") == Path("google-t5/t5-small")
    assert locate(tmp_path / "google-t5") == tmp_path / "google-t5"
    assert hub["calls"] == []


def test_a_mistyped_folder_offers_the_nearest(tmp_path: Path, hub: dict) -> None:
    (tmp_path / "runs" / "news").mkdir(parents=True)
    for name in ("./runs/nwes", tmp_path / "runs" / "nwes", "~/../nope/there", "a/b/c"):
        with pytest.raises(Missing, match="no such folder"):
            locate(name)
    with pytest.raises(Missing, match="did you mean `runs/news`"):
        locate("./runs/nwes")
    (tmp_path / "model.gguf").write_text("")
    with pytest.raises(Missing, match=r"no such file; did you mean `model.gguf`"):
        locate("modle.gguf")
    assert hub["calls"] == []


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("")
    with pytest.raises(Missing, match=r"not a checkpoint .*; give the folder that holds it"):
        locate("model.safetensors")


def test_only_what_is_read_is_downloaded(tmp_path: Path, hub: dict, bundle: Bundle) -> None:
    bundle.save(tmp_path / "cached")
    hub["answer"] = tmp_path / "cached"
    assert load("google-t5/t5-small").spec == bundle.spec
    ((name, options),) = hub["calls"]
    assert name == "google-t5/t5-small"
    assert options["allow_patterns"] == list(WANTED)
    assert options["local_files_only"] is False
    assert not any(pattern.endswith((".bin", ".py", "*")) for pattern in WANTED)


def test_offline_looks_at_the_cache_only(
    tmp_path: Path, hub: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub["answer"] = errors.LocalEntryNotFoundError("not cached")
    with pytest.raises(Missing, match=r"offline mode is on \(HF_HUB_OFFLINE\).*hf download a/b"):
        locate("a/b")
    assert hub["calls"][0][1]["local_files_only"] is True
    (tmp_path / "cached").mkdir()
    hub["answer"] = tmp_path / "cached"
    assert locate("a/b") == tmp_path / "cached"


def fake_response(status: int) -> object:
    from huggingface_hub.errors import HfHubHTTPError

    library = HfHubHTTPError.__mro__[1].__module__.split(".")[0]
    client = pytest.importorskip(library)
    return client.Response(status, request=client.Request("GET", "https://huggingface.co"))


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("LocalEntryNotFoundError", "the hub cannot be reached"),
        ("RepositoryNotFoundError", "no model of this name on the hub"),
        ("GatedRepoError", "is gated: accept its terms"),
        ("HFValidationError", "cannot be a hub name"),
        ("HfHubHTTPError", "downloading it from the hub failed: broken"),
    ],
)
def test_each_failure_says_what_to_do(hub: dict, kind: str, says: str) -> None:
    error = getattr(errors, kind)
    is_http = issubclass(error, errors.HfHubHTTPError)
    hub["answer"] = error("broken", response=fake_response(404)) if is_http else error("broken")
    with pytest.raises(Missing, match=says):
        locate("owner/name")


def test_a_hub_model_with_pickles_only_is_refused(
    tmp_path: Path, hub: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cached").mkdir()
    (tmp_path / "cached" / "config.json").write_text("{}")
    hub["answer"] = tmp_path / "cached"
    files = ["config.json", "pytorch_model.bin"]
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda name: files)
    with pytest.raises(Refused, match=r"pytorch_model\.bin only, a pickle"):
        locate("owner/name")


def test_the_hubs_gguf_files_are_the_users_choice(
    tmp_path: Path, hub: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cached").mkdir()
    hub["answer"] = tmp_path / "cached"
    files = ["README.md", "m-q4.gguf", "m-q8.gguf"]
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda name: files)
    with pytest.raises(Missing, match=r"2 GGUF files.*\n  hf download owner/name m-q4.gguf"):
        locate("owner/name")


def test_a_download_emits_its_progress(tmp_path: Path, hub: dict) -> None:
    """The client moves its bars from other threads; the listener of this one hears them."""
    import threading

    (tmp_path / "cached").mkdir()
    (tmp_path / "cached" / "model.safetensors").write_text("")
    hub["answer"] = tmp_path / "cached"
    heard: list[object] = []
    with events.listening(heard.append):
        locate("owner/name")
        bar = hub["calls"][0][1]["tqdm_class"](total=0, unit="B", desc="x", disable=False)
        bar.total = 100
        worker = threading.Thread(target=bar.update, args=(40,))
        worker.start()
        worker.join()
        bar.update(60)
        bar.set_description("done")
        bar.close()
    assert heard == [
        events.Progress("download owner/name", done, 100, "bytes") for done in (40, 100)
    ]


def test_every_file_that_a_reader_opens_is_downloaded() -> None:
    from huggingface_hub.utils import filter_repo_objects

    from mainspring.checkpoints import adapters, config, numbered, sentence, tokenizer

    opened = {
        *tokenizer.FILES,
        *(tokenizer.NUMBERS, *tokenizer.SIDES, numbered.M2M100_MODEL),
        *(config.CONFIG, config.GENERATION_CONFIG, adapters.CONFIG, adapters.WEIGHTS),
        *(sentence.MODULES, *sentence.SETTINGS),
        *("1_Pooling/config.json", "model-00001-of-00002.safetensors"),
    }
    kept = set(filter_repo_objects(opened, allow_patterns=list(WANTED)))
    assert kept == opened
    others = ["pytorch_model.bin", "modeling_x.py", "flax_model.msgpack", "onnx/model.onnx"]
    assert not list(filter_repo_objects(others, allow_patterns=list(WANTED)))
