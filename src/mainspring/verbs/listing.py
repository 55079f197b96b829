"""`tasks` and `models`: what there is."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mainspring.families import Family
    from mainspring.tasks import Task


@dataclass(frozen=True)
class Listing:
    """Rows of a table, with its headings; `name` says what the rows are."""

    name: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    exit_code: int = 0

    def lines(self, as_json: bool) -> Iterator[str]:
        if as_json:
            import json

            rows = [dict(zip(self.headings, row, strict=True)) for row in self.rows]
            yield json.dumps({self.name: rows}, ensure_ascii=False)
            return
        widths = [
            max(len(row[i]) for row in (self.headings, *self.rows))
            for i in range(len(self.headings))
        ]
        for row in (self.headings, *self.rows):
            yield "  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip()


def tasks(name: str | None = None, /) -> Listing:
    """The tasks: what each does and the column names its data may have.

    Parameters
    ----------
    name
        One task, with all that can be said of it: columns, options, what serves it.
    """
    from mainspring import registry

    if name is not None:
        return _task(registry.find("tasks", name))
    rows = []
    for each in registry.names("tasks"):
        task = registry.find("tasks", each)
        columns = "; ".join(f"{field.name}: {', '.join(field.accepted)}" for field in task.fields)
        rows.append((each, task.help, task.best, columns))
    return Listing("tasks", ("task", "does", "scored by", "columns"), tuple(rows))


def _task(task: "Task") -> Listing:
    rows = [("does", "", task.help)]
    for number, fields in enumerate((task.fields, *(layout.fields for layout in task.layouts))):
        for field in fields:
            what = f"{field.role}{'' if field.required else ', may be missing'}"
            told = f"{field.help}; columns: {', '.join(field.accepted)}"
            rows.append((what if not number else f"or {what}", field.name, told))
    for option in task.options:
        choices = f" ({', '.join(option.choices)})" if option.choices else ""
        default = "" if option.default is None else f"; {option.default} unless told otherwise"
        flag = "--" + option.name.replace("_", "-")
        rows.append(("option", flag, f"{option.help}{choices}{default}"))
    rows.append(("gives", task.output, "the column of a prediction"))
    rows += [("served by", formulation.name, "") for formulation in task.formulations]
    rows.append(("scored by", task.best, "picks the best checkpoint"))
    if task.model is not None:
        rows.append(("default model", task.model, "where none is named"))
    return Listing(task.name, ("what", "name", "details"), tuple(rows))


@dataclass(frozen=True)
class Models:
    """The families, what each can do, and the checkpoints that are here or can be fetched."""

    families: Listing
    models: Listing
    exit_code: int = 0

    def lines(self, as_json: bool) -> Iterator[str]:
        if as_json:
            import json

            parts = [json.loads(line) for part in self.parts for line in part.lines(True)]
            yield json.dumps({**parts[0], **parts[1]}, ensure_ascii=False)
            return
        yield from self.families.lines(False)
        yield ""
        yield from self.models.lines(False)

    @property
    def parts(self) -> tuple[Listing, Listing]:
        return self.families, self.models


def models() -> Models:
    """The families of models, what each can do, and which models are on disk or can be fetched.

    `tasks` are those that a model of the family can be fitted for (or only used for, where that is
    said), `pretraining` how it learns from plain text, `export` the files it is written as, and
    `from scratch` the sizes there are.
    """
    from mainspring import registry

    families = [_family(registry.find("families", name)) for name in registry.names("families")]
    here = [
        (found.name, found.family, f"{found.megabytes:.0f} MB", found.where)
        for found in (*fetched_models(), *cached_models())
    ]
    return Models(
        Listing(
            "families",
            ("family", "model types", "tasks", "pretraining", "export", "from scratch"),
            tuple(families),
        ),
        Listing("models", ("model", "family", "size", "where"), tuple(here)),
    )


def _family(family: "Family") -> tuple[str, ...]:
    """What the family's example models can do; "-" where there is nothing."""
    from mainspring import registry
    from mainspring.checkpoints.exporting import FORMATS
    from mainspring.errors import Mismatch
    from mainspring.tasks import choose_formulation

    specs = [family.spec(example, ()) for example in family.examples]
    can: dict[str, list[str]] = {}
    for name in registry.names("tasks"):
        for spec in specs:
            with suppress(Mismatch):
                chosen = choose_formulation(registry.find("tasks", name), spec, to="fit")
                shown = name if chosen.trains else f"{name} (use only)"
                can.setdefault(shown, []).append(chosen.name)
    pretraining = dict.fromkeys(can.pop("pretrain", ()))
    export = [name for name, form in FORMATS.items() if form.serves(family)]
    cells = (family.model_types, can, pretraining, export, family.sizes)
    return (family.name, *(", ".join(cell) or "-" for cell in cells))


@dataclass(frozen=True)
class Found:
    """A checkpoint on this machine, or one that can be fetched."""

    name: str
    family: str
    where: str
    megabytes: float


def fetched_models() -> Iterator[Found]:
    """The models that `mainspring get` knows: where they are, or how to have them."""
    from mainspring.checkpoints.packaged import TABLE, folder_of, is_here

    for item in TABLE.values():
        where = str(folder_of(item)) if is_here(item) else f"not here: mainspring get {item.name}"
        yield Found(item.name, item.family, where, item.size / 1e6)


def cached_models() -> Iterator[Found]:
    """The models in the Hugging Face cache whose family is known here."""
    import json

    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    from mainspring import registry

    families = {
        model_type: name
        for name in registry.names("families")
        for model_type in registry.find("families", name).model_types
    }
    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return
    for repository in sorted(repositories, key=lambda r: r.repo_id):
        for revision in repository.revisions:
            config = Path(revision.snapshot_path) / "config.json"
            if not config.is_file():
                continue
            settings: dict[str, Any] = json.loads(config.read_text(encoding="utf-8"))
            family = families.get(str(settings.get("model_type")))
            if family is not None:
                size = revision.size_on_disk / 1e6
                yield Found(repository.repo_id, family, str(revision.snapshot_path), size)
