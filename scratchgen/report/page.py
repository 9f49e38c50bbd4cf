"""A report: one self-contained HTML page about a run, or about several side by side.

Everything is in the page: styles inline, pictures as data URIs, no script, no network. What it
shows is read from the run folder; pictures are those that ``plots.draw_run`` has written.
"""

import base64
import json
import string
from dataclasses import dataclass
from html import escape
from pathlib import Path

from .. import plots
from ..errors import UserError
from ..plots.mosaic import png
from ..train import dataset_of, load, runs
from ..train.files import write_atomically
from ..train.run_data import data_name
from . import description as in_words
from . import lecture

NAME = "report.html"
PAGE = Path(__file__).with_name("page.html")
TYPES = {".png": "image/png", ".gif": "image/gif"}


@dataclass(frozen=True)
class Told:
    """What a report tells about one run."""

    run: runs.Run
    name: str
    model: object
    resolved: dict
    summary: dict
    environment: dict
    sizes: tuple | None
    pictures: dict               # name → (plots.Picture, path of its file), those that exist
    units: dict                  # term → unit

    @property
    def kind(self):
        return self.resolved["run"]["model"]

    def see(self, picture):
        """What there is to see in a picture of this run."""
        model = self.model.features if self.kind == "probe" else self.model
        forms = ["copy"] * (getattr(model.config, "level", None) == 0)
        forms += ["rotation"] * (getattr(self.model.config, "labels", None) == "rotation")
        return picture.seen_in(self.kind, *forms, getattr(model.config, "arch", "mlp"))


def write_report(paths, out=None):
    """Writes the report about the run folders ``paths``; returns its path.

    ``out`` is the file; None: ``report.html`` in the run folder, for one run alone. UserError for
    no runs, a folder that is none, and a file that cannot be written.
    """
    paths = [paths] if isinstance(paths, (str, Path)) else list(paths)
    if not paths:
        raise UserError("a report about no runs: give at least one run folder")
    if out is None and len(paths) > 1:
        raise UserError("a report about several runs: name its file with --out")
    out = Path(out) if out is not None else Path(paths[0]) / NAME
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"cannot write a report to {out}: expected a name that ends in .html")
    told = [_told(path) for path in paths]
    content = page(told)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {out.parent}: {error.strerror}") from None
    # Of file names that are not UTF-8, backslashreplace shows the bytes.
    write_atomically(out, content.encode("utf-8", "backslashreplace"))
    return out


def page(told):
    """The HTML text about the runs ``told``."""
    body = _one(told[0]) if len(told) == 1 else _several(told)
    title = told[0].name if len(told) == 1 else f"{len(told)} runs"
    template = string.Template(PAGE.read_text(encoding="utf-8"))
    return template.substitute(title=escape(f"{title} · scratchgen"), body=body)


# --- reading --------------------------------------------------------------------------------------


def _told(path):
    run = runs.open_run(path)
    resolved, history, model = run.config(), run.metrics(), load(path)
    drawn = {}
    for picture in plots.pictures_of(model, history):
        if (run.pictures / picture.file).is_file():
            drawn[picture.name] = picture, run.pictures / picture.file
    units = {term: panel.unit for panel in plots.panels_of(model, history) for term in panel.terms}
    return Told(run, Path(path).resolve().name, model, resolved, _read(run.path / "summary.json"),
                _read(run.path / "env.json"), _sizes(path), drawn, units)


def _read(path):
    """A JSON object; {} where the file is missing or holds something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _sizes(path):
    """(training items, test items, item shape); None where the data are no longer at hand."""
    try:
        dataset = dataset_of(path)
    except UserError:
        return None
    return len(dataset.train[0]), len(dataset.test[0]), tuple(dataset.item_shape)


# --- one run --------------------------------------------------------------------------------------


def _one(told):
    parts = [f'<p class="kicker">{escape(_kicker(told))}</p>', f"<h1>{escape(told.name)}</h1>",
             f"<p>{escape(_paragraph(told))}</p>", "<h2>Where it ended</h2>", _metrics([told])]
    for heading, curves in (("How it got there", True), ("What it makes", False)):
        figures = [_figure(told, name) for name in told.pictures
                   if name.startswith("curve-") == curves]
        if figures:
            parts += [f"<h2>{heading}</h2>", _grid("pictures", figures)]
    return "\n".join([*parts, "<h2>How to make it again</h2>", _again(told), _lecture(), _footer()])


def _kicker(told):
    return f"scratchgen · {told.kind} · {data_name(told.resolved)}"


def _paragraph(told):
    return in_words.paragraph(told.resolved, told.summary, told.sizes)


def _grid(name, items):
    return f'<div class="{name}">\n' + "\n".join(items) + "\n</div>"


def _figure(told, name, of_several=False, captioned=True):
    """A picture with its heading and caption; beside others it is named by its run instead."""
    picture, path = told.pictures[name]
    heading = told.name if of_several else picture.heading
    caption = f"<figcaption>{_caption(told, picture)}</figcaption>" if captioned else ""
    alt = f"{picture.heading}, {told.name}: {told.see(picture)}"
    return (f"<figure><h3>{escape(heading)}</h3>"
            f'<img src="{_data_uri(path)}" alt="{escape(alt)}">{caption}</figure>')


def _caption(told, picture):
    text, number = escape(told.see(picture)), picture.point_for(told.kind)
    if number is None:
        return text
    return f'{text} <a class="point" href="#point-{number}">Lecture, point {number}</a>'


def _data_uri(path):
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    return _inline(content, TYPES[path.suffix])


def _inline(content, kind):
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _metrics(told):
    """The last epoch's means, a row for each term; columns train and test of every run."""
    found = [_terms(each.summary) for each in told]
    named = [term for each in told for term in each.units]          # in the order of the curves
    terms = dict.fromkeys([*named, *(term for terms in found for term in terms)])
    terms = [term for term in terms if any(term in each for each in found)]
    if not terms:
        return "<p>No epoch has been finished.</p>"
    parts = [part for part in ("train", "valid", "test")
             if any(part in values for terms in found for values in terms.values())]
    names = [f"{escape(each.name)}<br>" * (len(told) > 1) + plots.WORDS.get(part, part)
             for each in told for part in parts]
    head = "".join(f'<th class="number">{name}</th>' for name in names)
    rows = []
    for term in terms:
        units = {each.units.get(term, "") for each in told} - {""}
        cells = "".join(f'<td class="number">{_number(terms.get(term, {}).get(part))}</td>'
                        for terms in found for part in parts)
        name = in_words.term(term, [each.kind for each in told])
        rows.append(f"<tr><td>{escape(name)}</td>{cells}"
                    f'<td class="unit">{escape(", ".join(sorted(units)))}</td></tr>')
    return (f'<div class="scroll"><table><thead><tr><th>mean of</th>{head}<th>unit</th></tr>'
            f"</thead><tbody>{''.join(rows)}</tbody></table></div>")


def _terms(summary):
    """Term → {part: value} of a summary."""
    terms = {}
    for part in ("train", "valid", "test"):
        for name, value in summary.items():
            if name.startswith(f"{part}_") and isinstance(value, (int, float)):
                terms.setdefault(name.removeprefix(f"{part}_"), {})[part] = value
    return terms


def _number(value):
    if value is None:
        return "–"
    text = f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"
    return text.replace("-", "−")


def _again(told):
    versions = told.environment.get("versions") or {}
    versions = {**versions} if isinstance(versions, dict) else {}
    for name in ("platform", "processors", "commit"):
        if name in told.environment:
            versions[name] = told.environment[name]
    rows = "".join(f"<tr><td>{escape(str(name))}</td><td>{escape(str(value))}</td></tr>"
                   for name, value in versions.items())
    table = f'<table class="made"><tbody>{rows}</tbody></table>' if rows else ""
    settings = escape(in_words.config.dumps(told.resolved))
    return ("<p>The same configuration, and with these versions the same numbers:</p>"
            f'<pre class="wrap">{escape(in_words.command(told.resolved))}</pre>'
            f"<details><summary>The whole configuration</summary><pre>{settings}</pre></details>"
            f"<p>Made with:</p>{table}")


def _lecture():
    items = "\n".join(f'<li id="point-{number}"><strong>{escape(point.name)}.</strong> '
                      f"{escape(point.text)}</li>" for number, point in lecture.POINTS.items())
    return f'<h2>The lecture, in ten points</h2>\n<ol class="lecture">\n{items}\n</ol>'


def _footer():
    return ("<footer>Numbers are means per item over a whole epoch (train) and, at its end, over "
            "all test items (test). Written by scratchgen; this page loads nothing from anywhere."
            "</footer>")


# --- several runs ---------------------------------------------------------------------------------


def _several(told):
    cards = [f"<section><h3>{escape(each.name)}</h3><p>{escape(_paragraph(each))}</p></section>"
             for each in told]
    parts = [f'<p class="kicker">scratchgen · {len(told)} runs side by side</p>',
             f"<h1>{escape(' · '.join(each.name for each in told))}</h1>", _grid("runs", cards),
             "<h2>Where they ended</h2>", _metrics(told)]
    names = dict.fromkeys(name for each in told for name in each.pictures)
    for name in sorted(names, key=lambda name: not name.startswith("curve-")):   # curves first
        parts += _side_by_side([each for each in told if name in each.pictures], name)
    parts += [_filters(told), "<h2>How to make them again</h2>"]
    parts += [f"<h3>{escape(each.name)}</h3>\n{_again(each)}" for each in told]
    return "\n".join([*parts, _lecture(), _footer()])


def _filters(told):
    """The same units of several denoising autoencoders, by corruption; "" where there are none."""
    models = [each.model for each in told if each.kind == "dae"]
    shapes = {getattr(plots.first_weights(model), "shape", None) for model in models}
    if len(models) < 2 or len(shapes) > 1 or shapes == {None}:
        return ""
    picture = _inline(png(plots.filters_by_corruption(models)), TYPES[".png"])
    see = ("The more the input is corrupted, the less a unit can rely on single pixels: dots give "
           "way to larger pieces of shapes.")
    return ("<h2>Filters as corruption grows</h2>"
            f'<div class="shared"><p>{see} <a class="point" href="#point-2">Lecture, point 2</a>'
            f'</p></div><figure class="wide"><img src="{picture}" alt="{see}"></figure>')


def _side_by_side(told, name):
    """One picture of each run that has it, under one heading; a caption that all share, once."""
    captions = {_caption(each, each.pictures[name][0]) for each in told}
    headings = {each.pictures[name][0].heading for each in told}
    one = len(captions) == 1
    heading = headings.pop() if len(headings) == 1 else name.removeprefix("curve-").capitalize()
    return [f"<h2>{escape(heading)}</h2>",
            *([f'<div class="shared"><p>{captions.pop()}</p></div>'] if one else []),
            _grid("pictures beside", [_figure(each, name, True, not one) for each in told])]
