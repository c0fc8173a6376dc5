"""The site: it builds without a warning, asks no other computer for anything, and its links lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from support.doc_blocks import ROOT, check_options

FETCHED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "embed": "src",
    "object": "data",
}
"""What a browser loads by itself, and the attribute that says from where."""

FETCHED_LINKS = {"stylesheet", "icon", "preload", "prefetch", "preconnect", "dns-prefetch", "modulepreload", "manifest"}


class Page(HTMLParser):
    """What a page loads, links to, and can be linked at."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        said = {name: value or "" for name, value in attributes}
        if "id" in said:
            self.anchors.add(said["id"])
        if tag in FETCHED and FETCHED[tag] in said:
            self.loads.append(said[FETCHED[tag]])
        if tag == "link" and FETCHED_LINKS & set(said.get("rel", "").split()):
            self.loads.append(said["href"])
        if tag == "a" and "href" in said:
            self.links.append(said["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=quiet)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text()) for path in sorted(site.rglob("*.html"))}


def test_there_is_a_page_for_each_of_docs(site: Path, pages: dict[Path, Page]) -> None:
    for source in (ROOT / "docs").rglob("*.md"):
        place = source.relative_to(ROOT / "docs").with_suffix("")
        built = site / ("index.html" if place.name == "index" and not place.parent.name else place / "index.html")
        if place.name == "index":
            built = site / place.parent / "index.html"
        assert built in pages, f"{source} has no page"
    assert site / "commands/index.html" in pages
    assert site / "first_model/index.html" in pages


def test_pages_load_nothing_from_elsewhere(pages: dict[Path, Page]) -> None:
    for path, page in pages.items():
        outside = [address for address in page.loads if urlsplit(address).netloc]
        assert not outside, f"{path} loads {outside}"
        assert page.loads, "nothing is loaded: the test no longer sees what it looks for"


def test_style_sheets_load_nothing_from_elsewhere(site: Path) -> None:
    sheets = list(site.rglob("*.css"))
    assert sheets
    for sheet in sheets:
        loaded = re.findall(r"""(?:url\(|@import)\s*["']?\s*(?:https?:)?//[^)"']+""", sheet.read_text())
        assert not loaded, f"{sheet} loads {loaded}"


def test_links_lead_somewhere(site: Path, pages: dict[Path, Page]) -> None:
    followed = 0
    for path, page in pages.items():
        if path.name == "404.html":  # its links are told for the root of a server
            continue
        for link in [*page.links, *page.loads]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = path if not parts.path else (path.parent / unquote(parts.path)).resolve()
            if target.is_dir():
                target /= "index.html"
            assert target.is_file(), f"{path.relative_to(site)} links to {link}"
            if parts.fragment and target in pages:
                anchors = pages[target].anchors
                assert unquote(parts.fragment) in anchors, f"{path.relative_to(site)} links to {link}"
            followed += 1
    assert followed > 100


def test_formulas_are_mathml(site: Path) -> None:
    text = (site / "method/index.html").read_text()
    assert text.count('<div class="formula"><math') >= 10
    assert "<mfrac>" in text
    left = re.findall(r'class="arithmatex"|\\\(|\\\[', re.sub(r"<(script|code|pre).*?</\1>", "", text, flags=re.S))
    assert not left, "a formula stayed as LaTeX"
    unknown = re.findall(r"<m[io]>\\[a-z]*</m[io]>|negativethinmathspace", text)
    assert not unknown, f"LaTeX that latex2mathml does not know: {unknown}"


def test_the_reference_documents_what_is_public(site: Path) -> None:
    import sotglp

    anchors: set[str] = set()
    for path in (site / "reference").rglob("*.html"):
        anchors |= Page(path.read_text()).anchors
    missing = {f"sotglp.{name}" for name in sotglp.__all__} - anchors
    assert not missing, f"add these to docs/reference: {sorted(missing)}"
    methods = (
        "fit",
        "predict",
        "predict_proba",
        "predict_sets",
        "ood_score",
        "calibrate",
        "is_ood",
        "add_class",
        "save",
    )
    assert not {f"sotglp.SOTGLPClassifier.{name}" for name in methods} - anchors


def test_docstrings_keep_no_role_of_sphinx(site: Path) -> None:
    for path in (site / "reference").rglob("*.html"):
        roles = re.findall(r":(?:class|meth|func|mod|attr|data):", path.read_text())
        assert not roles, f"{path} shows {set(roles)}"


def test_parameters_told_together_keep_their_own_types_and_defaults(site: Path) -> None:
    text = re.sub(r"<[^>]+>", " ", (site / "reference/classifiers/index.html").read_text())
    rows = re.sub(r"\s+", " ", text)
    assert re.search(r" top_k int \| None See sotglp.SOTGLP . 10 ", rows)
    assert re.search(r" template str See sotglp.SOTGLP . (&#39;|'|\")A photo of a {}(&#39;|'|\") ", rows)
    assert re.search(r" momentum float See sotglp.settings.TrainConfig . 0\.9 ", rows)
    assert re.search(r" epochs int \| Literal \[.*?auto.*?\] \| None See sotglp.settings.TrainConfig ; ", rows)


def test_every_command_and_its_example_are_in_the_reference(site: Path) -> None:
    from typer.main import get_command

    from sotglp.cli.commands import app

    page = (site / "commands/index.html").read_text()
    commands = get_command(app).commands  # type: ignore[attr-defined]
    for name in commands:
        assert f"sotglp {name}" in page
    assert not re.search(r"<li><p><code>\w+</code>: [^<]*\.\.\.", page), "a summary is cut off"
    assert "[bold]" not in page, "an example stayed as it was"


def test_examples_in_the_help_have_options_that_there_are() -> None:
    sys.path.insert(0, str(ROOT / "mkdocs_hooks"))
    try:
        from commands import reference
    finally:
        sys.path.pop(0)
    examples = re.findall(r"```sh\n(sotglp .+)\n```", reference())
    assert len(examples) > 10
    for example in examples:
        check_options(shlex.split(example)[1:])
