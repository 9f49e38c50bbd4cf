"""The contents of a report: what is read from the run folders, as plain values for the template."""

import base64
import json
from dataclasses import dataclass
from pathlib import Path

from .. import plots
from ..errors import UserError
from ..plots.mosaic import png
from ..train import config, dataset_of, load, runs
from ..train.run_data import data_name
from . import description
from .command_line import command_line

MIME_TYPES = {".png": "image/png", ".gif": "image/gif"}
PARTS = ("train", "valid", "test")                  # prefixes of the names in summary.json


@dataclass(frozen=True)
class RunContents:
    """The contents of one run folder."""

    name: str
    model: object
    resolved: dict                                  # the configuration
    summary: dict                                   # of summary.json
    environment: dict                               # of env.json
    sizes: tuple | None                             # (training items, test items, item shape)
    pictures: dict[str, tuple[plots.Picture, Path]]     # name → picture and file, if it exists
    units: dict[str, str]                           # loss term → unit

    @property
    def kind(self):
        return self.resolved["run"]["model"]

    @property
    def data_name(self):
        return data_name(self.resolved)

    @property
    def paragraph(self):
        return description.paragraph(self.resolved, self.summary, self.sizes)

    @property
    def command_line(self):
        return command_line(self.resolved)

    @property
    def configuration(self):
        return config.dumps(self.resolved)

    @property
    def versions(self):
        """Rows (name, value): versions of software, then the machine and the commit."""
        versions = self.environment.get("versions")
        versions = {**versions} if isinstance(versions, dict) else {}
        for name in ("platform", "processors", "commit"):
            if name in self.environment:
                versions[name] = self.environment[name]
        return list(versions.items())

    def explanation(self, picture: plots.Picture) -> str:
        """What a picture of this run shows."""
        model = self.model.features if self.kind == "probe" else self.model
        forms = ["copy"] * (getattr(model.config, "level", None) == 0)
        forms += ["rotation"] * (getattr(self.model.config, "labels", None) == "rotation")
        return picture.caption_for(self.kind, *forms, getattr(model.config, "arch", "mlp"))


@dataclass(frozen=True)
class Caption:
    """An explanation, and the number of the lecture's point that it belongs to (or None)."""

    text: str
    point: int | None


@dataclass(frozen=True)
class Figure:
    """A picture as a data URI."""

    heading: str
    uri: str
    alt: str
    caption: Caption | None = None


@dataclass(frozen=True)
class Section:
    """Figures under one heading; ``caption``: one that all of them share."""

    heading: str
    figures: list[Figure]
    caption: Caption | None = None


@dataclass(frozen=True)
class Row:
    """One loss term: its values in the order of the table's columns, formatted."""

    label: str
    values: list[str]
    unit: str


@dataclass(frozen=True)
class Metrics:
    """The final metrics; ``columns``: (name of the run, "train", "validation" or "test")."""

    columns: list[tuple[str, str]]
    rows: list[Row]


# -- reading a run folder


def read_run(path) -> RunContents:
    """Reads the run folder ``path``; missing optional files are left out."""
    run = runs.open_run(path)
    resolved, history, model = run.config(), run.metrics(), load(path)
    pictures = {}
    for picture in plots.pictures_of(model, history):
        if (run.pictures / picture.file).is_file():
            pictures[picture.name] = picture, run.pictures / picture.file
    units = {term: panel.unit for panel in plots.panels_of(model, history) for term in panel.terms}
    return RunContents(Path(path).resolve().name, model, resolved,
                       _read_json(run.path / "summary.json"), _read_json(run.path / "env.json"),
                       _sizes(path), pictures, units)


def _read_json(path):
    """The JSON object in a file; {} if the file is missing or contains something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _sizes(path):
    """(training items, test items, item shape); None if the data are no longer available."""
    try:
        dataset = dataset_of(path)
    except UserError:
        return None
    return len(dataset.train[0]), len(dataset.test[0]), tuple(dataset.item_shape)


# -- metrics


def metrics_table(contents: list[RunContents]) -> Metrics:
    """The metrics of the last epoch: a row for each loss term, columns for each run and part."""
    values = [_values_by_term(run.summary) for run in contents]
    known = [term for run in contents for term in run.units]        # in the order of the curves
    terms = dict.fromkeys([*known, *(term for found in values for term in found)])
    terms = [term for term in terms if any(term in found for found in values)]
    parts = [part for part in PARTS
             if any(part in of_part for found in values for of_part in found.values())]
    columns = [(run.name, plots.WORDS.get(part, part)) for run in contents for part in parts]
    rows = []
    for term in terms:
        units = {run.units.get(term, "") for run in contents} - {""}
        rows.append(Row(description.term_label(term, [run.kind for run in contents]),
                        [_number(found.get(term, {}).get(part))
                         for found in values for part in parts],
                        ", ".join(sorted(units))))
    return Metrics(columns, rows)


def _values_by_term(summary):
    """Loss term → {part: value} of a summary."""
    terms = {}
    for part in PARTS:
        for name, value in summary.items():
            if name.startswith(f"{part}_") and isinstance(value, (int, float)):
                terms.setdefault(name.removeprefix(f"{part}_"), {})[part] = value
    return terms


def _number(value):
    if value is None:
        return "–"
    text = f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"
    return text.replace("-", "−")


# -- pictures


def sections_of_one(run: RunContents) -> list[Section]:
    """The sections of a report about one run: the curves, then all other pictures."""
    sections = []
    for heading, are_curves in (("Training curves", True), ("Pictures", False)):
        names = [name for name in run.pictures if name.startswith("curve-") == are_curves]
        figures = [_figure(run, name, run.pictures[name][0].heading, _caption(run, name))
                   for name in names]
        if figures:
            sections.append(Section(heading, figures))
    return sections


def sections_of_several(contents: list[RunContents]) -> list[Section]:
    """The sections of a report about several runs: one for each picture, the curves first.

    A caption that is the same for all runs is shown once, for the section.
    """
    names = dict.fromkeys(name for run in contents for name in run.pictures)
    return [_side_by_side([run for run in contents if name in run.pictures], name)
            for name in sorted(names, key=lambda name: not name.startswith("curve-"))]


def _side_by_side(contents, name):
    captions = [_caption(run, name) for run in contents]
    headings = {run.pictures[name][0].heading for run in contents}
    same = len(set(captions)) == 1
    heading = headings.pop() if len(headings) == 1 else name.removeprefix("curve-").capitalize()
    figures = [_figure(run, name, run.name, None if same else caption)
               for run, caption in zip(contents, captions, strict=True)]
    return Section(heading, figures, captions[0] if same else None)


def _figure(run, name, heading, caption):
    picture, path = run.pictures[name]
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    alt = f"{picture.heading}, {run.name}: {run.explanation(picture)}"
    return Figure(heading, _data_uri(content, MIME_TYPES[path.suffix]), alt, caption)


def _caption(run, name):
    picture = run.pictures[name][0]
    return Caption(run.explanation(picture), picture.point_for(run.kind))


def _data_uri(content, mime_type):
    return f"data:{mime_type};base64,{base64.b64encode(content).decode('ascii')}"


def filters_figure(contents: list[RunContents]) -> Figure | None:
    """The filters of several denoising autoencoders side by side, sorted by corruption.

    None unless there are at least two, with weights of the same shape.
    """
    models = [run.model for run in contents if run.kind == "dae"]
    shapes = {getattr(plots.first_weights(model), "shape", None) for model in models}
    if len(models) < 2 or len(shapes) > 1 or shapes == {None}:
        return None
    text = ("The more the input is corrupted, the less a unit can rely on single pixels: the dots "
            "become larger pieces of shapes.")
    uri = _data_uri(png(plots.filters_by_corruption(models)), MIME_TYPES[".png"])
    return Figure("Filters for increasing corruption", uri, text, Caption(text, 2))
