"""The report: well-formed, self-contained, complete, and the same run from its own command."""

import base64
import json
import re
import shlex
import shutil
import struct
import subprocess
import tempfile
from html.parser import HTMLParser

import pytest

from scratchgen import models, plots, report, train, use_backend
from scratchgen.errors import UserError
from scratchgen.report import contents, lecture
from scratchgen.report.command_line import command_line
from scratchgen.report.description import paragraph
from scratchgen.train import config, runs

VOID = {"meta", "img", "br", "link", "hr", "input"}
SMALL = {"dae": {"hidden": 12}, "vae": {"hidden": 12, "latent": 2},
         "gan": {"latent": 3, "generator": [12], "discriminator": [12]}}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
                None)


class Page(HTMLParser):
    """Reads a page; raises where a tag is closed that is not open."""

    def __init__(self, text):
        super().__init__()
        self.open, self.images, self.links, self.ids = [], [], [], []
        self.tags, self.text = set(), ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(attributes)
        if "href" in attributes:
            self.links.append(attributes["href"])
        if "id" in attributes:
            self.ids.append(attributes["id"])
        for name in attributes:
            assert not name.startswith("on")                  # no script of any kind

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Kind → folder of a drawn run of two epochs on 20 images; not to be changed."""
    folder = tmp_path_factory.mktemp("runs")
    with use_backend("numpy"):
        for kind, sizes in SMALL.items():
            train.train({"run": {"model": kind, "backend": "numpy"}, "data": {"limit": 20},
                         "train": {"epochs": 2}, "model": sizes}, folder / kind,
                        on_epoch=plots.keep_samples)
            plots.draw_run(folder / kind)
    return {kind: folder / kind for kind in SMALL}


@pytest.fixture(scope="module")
def pages(trained, tmp_path_factory):
    """Name → path of a report: one for each run, and "all" of them side by side."""
    folder = tmp_path_factory.mktemp("reports")
    written = {kind: report.write_report([path], folder / f"{kind}.html")
               for kind, path in trained.items()}
    written["all"] = report.write_report(list(trained.values()), folder / "all.html")
    return written


EACH = [*SMALL, "all"]


# --- the page -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EACH)
def test_page_is_well_formed_and_self_contained(pages, name):
    text = pages[name].read_text(encoding="utf-8")
    page = Page(text)
    assert text.startswith("<!doctype html>") and 'lang="en"' in text and "viewport" in text
    assert not page.tags & {"script", "link", "iframe", "object", "embed", "base", "form"}
    assert "http:" not in text and "https:" not in text and "//" not in text.split("</style>")[0]
    assert "@import" not in text and "url(" not in text
    for image in page.images:
        kind, _, content = image["src"].partition(";base64,")
        content = base64.b64decode(content, validate=True)
        signature = {"data:image/png": b"\x89PNG", "data:image/gif": b"GIF8"}[kind]
        assert content.startswith(signature)
        assert len(image["alt"]) > 40
    for link in page.links:
        assert link.startswith("#") and link[1:] in page.ids
    assert len(page.ids) == len(set(page.ids))
    assert [f"point-{n}" for n in range(1, 11)] == page.ids


@pytest.mark.parametrize("name", EACH)
def test_nothing_is_wider_than_a_phone(pages, name):
    """Sizes are relative, grids fold, pictures shrink; what may be wide scrolls in its own box."""
    text = pages[name].read_text(encoding="utf-8")
    style, body = text.split("</style>")
    assert "px" not in style.replace("1px solid", "")
    assert "width=" not in body and "style=" not in body
    assert "figure img { display: block; width: 100%; height: auto" in style
    assert "minmax(min(100%," in style and "@media print" in style
    assert "prefers-color-scheme: dark" in style
    assert body.count("<table>") == body.count('<div class="scroll"><table>') > 0


@pytest.mark.parametrize("kind", SMALL)
def test_every_picture_is_there_with_what_to_see(trained, pages, kind):
    page = Page(pages[kind].read_text(encoding="utf-8"))
    files = sorted(path for path in (trained[kind] / "pictures").iterdir() if path.is_file())
    shown = [base64.b64decode(image["src"].partition(",")[2]) for image in page.images]
    assert sorted(shown) == sorted(path.read_bytes() for path in files)
    model = train.load(trained[kind])
    for picture in plots.pictures_of(model, runs.open_run(trained[kind]).metrics()):
        if (trained[kind] / "pictures" / picture.file).exists():
            assert picture.heading in page.text and picture.caption_for(kind) in page.text
            assert f"#point-{picture.point_for(kind)}" in page.links


@pytest.mark.parametrize("kind", SMALL)
def test_final_metrics_are_those_of_the_summary(trained, pages, kind):
    page = Page(pages[kind].read_text(encoding="utf-8"))
    summary = json.loads((trained[kind] / "summary.json").read_text())
    for name, value in summary.items():
        if name.startswith(("train_", "test_")):
            shown = f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"
            assert shown.replace("-", "−") in page.text
    assert "nats per image" in page.text
    for point in lecture.POINTS.values():
        assert point.name in page.text and point.text in page.text


def test_captions_depend_on_how_the_features_were_trained():
    """The codes of a stack and of a classifier are features; rotations need no class labels."""
    def seen(kind, name, **config):
        model = models.MODELS[kind](models.MODELS[kind].Config(**config))
        run = contents.RunContents("", model, {"run": {"model": kind}}, {}, {}, None, {}, {})
        return run.explanation(next(p for p in plots.PICTURES if p.name == name))

    assert "does not constrain" in seen("dae", "embedding", hidden=3)
    assert "classifier on top" in seen("sdae", "embedding", layers=[3], levels=[0.1])
    assert "classifier on top" in seen("classifier", "embedding", arch="conv")
    assert "class labels were not used" in seen("classifier", "embedding", labels="rotation")
    assert "true rotations" in seen("classifier", "confusion", labels="rotation")
    assert "true classes" in seen("classifier", "confusion")


def test_terms_have_labels(pages):
    """A GAN's loss is that of D; beside other models' losses the table says whose it is."""
    gan, together = (pages[name].read_text(encoding="utf-8") for name in ("gan", "all"))
    for words in ("loss of D", "loss of G", "output of D on data, D(x)"):
        assert f"<td>{words}</td>" in gan
    assert "<td>loss (GAN: of D)</td>" in together and "<td>loss of D</td>" not in together
    assert not any(f"<td>{name}</td>" in gan + together for name in ("g loss", "d real", "kl"))


def test_several_runs_stand_side_by_side(trained, pages, tmp_path):
    text = pages["all"].read_text(encoding="utf-8")
    page = Page(text)
    assert all(f">{kind}<br>test</th>" in text for kind in SMALL)
    assert page.text.count("scratchgen train") == 3
    # Two denoising autoencoders: their filters in one picture, too.
    assert "Filters for increasing corruption" not in page.text
    twice = report.write_report([trained["dae"], trained["dae"]], tmp_path / "twice.html")
    assert "Filters for increasing corruption" in twice.read_text(encoding="utf-8")


def test_everything_is_escaped(trained, tmp_path):
    folder = tmp_path / "a <b>&\"'run"
    shutil.copytree(trained["gan"], folder)
    (folder / "env.json").write_text(json.dumps({"versions": {"<script>": "</td><img src=x>"},
                                                 "platform": "<i>", "commit": None}))
    written = report.write_report(folder)
    assert written == folder / "report.html"
    page = Page(written.read_text(encoding="utf-8"))
    assert "a <b>&\"'run" in page.text and "</td><img src=x>" in page.text
    assert not page.tags & {"b", "i", "script"} and all("alt" in image for image in page.images)


def test_run_with_little_left_still_has_a_report(trained, tmp_path):
    """Without metrics, summary, environment, pictures and data, the page shows what is left."""
    for name in ("config.toml", "checkpoint.safetensors"):
        shutil.copy(trained["vae"] / name, tmp_path / name)
    (tmp_path / "summary.json").write_text("{torn")
    (tmp_path / "env.json").write_text("[]")
    page = Page(report.write_report(tmp_path).read_text(encoding="utf-8"))
    assert "No epoch has been finished" in page.text and page.images == []
    assert "variational autoencoder" in page.text


def test_what_cannot_be_reported_is_refused(trained, tmp_path):
    with pytest.raises(UserError, match="at least one run"):
        report.write_report([])
    with pytest.raises(UserError, match="--out"):
        report.write_report(list(trained.values()))
    with pytest.raises(UserError, match="no run in"):
        report.write_report(tmp_path)
    with pytest.raises(UserError, match="ends in .html"):
        report.write_report(trained["gan"], tmp_path / "report.pdf")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot create the folder"):
        report.write_report(trained["gan"], tmp_path / "file" / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# --- words, and the command -----------------------------------------------------------------------


@pytest.mark.parametrize("kind, preset", [(kind, preset) for kind, model in models.MODELS.items()
                                          for preset in model.presets])
def test_every_preset_is_described(kind, preset):
    given = {"run": {"model": kind, "preset": preset}}
    if kind == "probe":
        given["model"] = {"features": "runs/a"}
    text = paragraph(config.resolve(given), {"epochs": 1, "seconds": 61.2}, None)
    assert 100 < len(text) < 900 and text.endswith(".") and "in 1 min 1 s" in text
    assert "None" not in text and "[" not in text and "{" not in text
    assert "1 epoch " in text


def test_words_follow_the_configuration():
    def words(kind, **model):
        resolved = config.resolve({"run": {"model": kind}, "model": model})
        return paragraph(resolved, {}, (1000, 20, (28, 14, 3)))

    assert "1,000 training images and 20 test images of 14×28 pixels in colour" in words("dae")
    assert "the model can learn to copy it" in words("dae", level=0.0)
    assert "set to zero with probability 0.4" in words("dae", level=0.4)
    assert "squared error" in words("dae", loss="mse")
    assert "hidden layers of 9, 8 and 7 units" in words("vae", hidden=[9, 8, 7])
    assert "the KL divergence weighted by 4" in words("vae", beta=4.0)
    assert "ln p(x) with 5 samples" in words("vae", objective="iwae", samples=5)
    assert "one-sided label smoothing" in words("gan", smoothing=0.1)
    assert "Wasserstein GAN loss" in words("gan", loss="wasserstein", penalty="gradient")
    plain, stacked = words("sdae", pretrain=False), words("sdae")
    assert "layers are not pre-trained" in plain and "including pre-training" in stacked
    assert "including pre-training" not in plain + words("vae")
    assert "lowest error on held-out" in plain and "lowest error on held-out" in stacked
    assert "held-out" not in words("sdae", validation=0.0)
    assert "rotation of each image" in words("classifier", labels="rotation")
    assert "two convolutions of stride 2 and 128 features" in words("classifier", arch="conv")
    assert "with one hidden layer of 7 units was trained" in words("probe", hidden=7, features="a")
    assert "Bernoulli probability for each pixel" in words("vae")
    assert "with a fixed standard deviation" in words("vae", decoder="gaussian")
    assert "with one learned standard deviation" in words("vae", decoder="learned-variance")
    assert "three convolutions of stride 2" in words("vae", arch="conv", channels=[8, 8, 8])


def test_points_have_coordinates_and_no_pixels():
    for kind in ("dae", "vae"):
        resolved = config.resolve({"run": {"model": kind, "preset": "points"}})
        text = paragraph(resolved, {}, (1000, 20, (2,)))
        assert "points in 2 dimensions" in text and "pixel" not in text
        assert ("a Gaussian for each coordinate" in text) == (kind == "vae")


@pytest.mark.parametrize("given", [
    {"run": {"model": "vae", "preset": "demo", "seed": 3}, "train": {"epochs": 2, "lr": 1e-05}},
    {"run": {"model": "gan", "gradient": "explicit", "dtype": "float64"},
     "model": {"generator": [3, 4], "loss": "minimax"}, "train": {"beta1": 0.25}},
    {"run": {"model": "dae", "backend": "numpy"}, "model": {"tied": True, "level": 0.5},
     "data": {"name": "a b'c.npy", "limit": 7, "binarize": "static"}},
    {"run": {"model": "dae"}, "train": {"optimizer": "sgd", "momentum": 0.5}},
], ids=["vae", "gan", "dae", "sgd"])
def test_the_command_gives_the_same_configuration(given, monkeypatch):
    from scratchgen import cli

    asked = []
    monkeypatch.setattr(cli.training, "run_training",
                        lambda given, *rest: asked.append(given) or "folder")
    resolved = config.resolve(given)
    assert cli.run(shlex.split(command_line(resolved))[1:]) == 0
    assert config.resolve(asked[0]) == resolved


def test_the_command_names_no_place_of_this_machine():
    resolved = config.resolve({"run": {"model": "vae"}, "data": {"dir": "home/someone"}})
    assert command_line(resolved) == "scratchgen train vae --data-dir FOLDER"
    for given, told in (("/home/someone/runs/a", "FOLDER/a"), ("runs/a", "runs/a")):
        resolved = config.resolve({"run": {"model": "probe"}, "model": {"features": given}})
        assert command_line(resolved) == f"scratchgen train probe --features {told}"
        assert "features of the run a," in paragraph(resolved, {})


# --- in a browser ---------------------------------------------------------------------------------


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH to render the report with")
@pytest.mark.parametrize("name", ["vae", "all"])
def test_chromium_renders_the_page_without_sideways_scrolling(pages, tmp_path, name):
    """In a frame as wide as a phone the page reports its own width; the picture is not blank."""
    probe = tmp_path / "probe.html"
    probe.write_text(
        f'<body style="margin:0"><iframe id="f" style="width:360px;height:640px;border:0" '
        f'src="{name}.html"></iframe><script>onload=()=>{{const d=document.getElementById("f")'
        ".contentDocument.documentElement;document.body.append(`${d.clientWidth} wide, fits: "
        "${d.scrollWidth <= d.clientWidth}`)}</script></body>")
    shutil.copy(pages[name], tmp_path / f"{name}.html")
    said = browse(["--allow-file-access-from-files", "--dump-dom"], probe).decode()
    width = re.search(r"(\d+) wide, fits: true<", said)
    assert width and 300 < int(width.group(1)) <= 360
    shot = tmp_path / "shot.png"
    browse([f"--screenshot={shot}", "--window-size=1200,900"], pages[name])
    content = shot.read_bytes()
    assert struct.unpack(">II", content[16:24]) == (1200, 900) and len(content) > 30_000


def browse(options, page):
    """What headless Chromium prints about a page."""
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        return subprocess.run([CHROMIUM, *quiet, f"--user-data-dir={profile}", *options,
                               page.resolve().as_uri()], capture_output=True, timeout=60,
                              check=True).stdout
