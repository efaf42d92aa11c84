"""An entry from a stranger makes the browser fetch nothing from elsewhere, on any page."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from tests.browser.test_app import PAGES, open_page, serving, settle, visit
from tests.browser.test_hub import choose
from tests.hostile import change_config
from tests.making import LABELS, add_evaluation, draw_cell, make_entry

pytestmark = pytest.mark.browser
TITLE = "Tiny of a stranger"
OWN_SCHEMES = {"data", "blob", "about"}
CARD = """---
license: apache-2.0
---
# A card <img src="http://evil.invalid/html.png"> ![plain](http://evil.invalid/plain.png)

![nested [brackets]](http://evil.invalid/nested.png) !![inner](x)[joined](http://evil.invalid/joined.png)
![reference][evil] ![evil] [![in a link](http://evil.invalid/linked.png)](http://evil.invalid/page)
![two
lines](http://evil.invalid/lines.png) ![title](http://evil.invalid/title.png "title") ![<](<http://evil.invalid/angle.png>)
![svg](data:image/svg+xml;base64,PHN2ZyB4bWxucz0iaHR0cDovL3d3dy53My5vcmcvMjAwMC9zdmciPjxpbWFnZSBocmVmPSJodHRwOi8vZXZpbC5pbnZhbGlkL3N2Zy5wbmciLz48L3N2Zz4=)

[evil]: http://evil.invalid/reference.png

[log in](http://evil.invalid/login) [script](javascript:alert(1)) <javascript:alert(1)> [data](data:text/html,<script>)
[by reference][evil] [evil] <http://evil.invalid/auto> http://evil.invalid/bare

<style>@import url("http://evil.invalid/style.css"); body { background: url(http://evil.invalid/back.png) }</style>
<link rel="stylesheet" href="http://evil.invalid/link.css"><link rel="icon" href="http://evil.invalid/icon.png">
<iframe src="http://evil.invalid/frame"></iframe><object data="http://evil.invalid/object"></object>
<svg><image href="http://evil.invalid/image.png"/><use href="http://evil.invalid/use.svg#a"/></svg>
<script src="http://evil.invalid/script.js"></script><video src="http://evil.invalid/video.mp4"></video>
<meta http-equiv="refresh" content="0;url=http://evil.invalid/refresh"><base href="http://evil.invalid/">

$\\includegraphics{http://evil.invalid/tex.png}$ $\\href{http://evil.invalid/tex}{tex}$

```mermaid
graph TD; A["<img src='http://evil.invalid/mermaid.png'>"] --> B; click A href "http://evil.invalid/click"
```

| a |
|---|
| ![cell](http://evil.invalid/cell.png) |
"""
IMAGE = "![x](http://evil.invalid/text.png)"


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one entry with a hostile card, hostile notes, descriptions and curves."""
    folder = make_entry(tmp_path_factory.mktemp("strangers") / "tiny", "cnn60", title=TITLE)
    add_evaluation(folder, 1)
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    evaluation = json.loads((folder / "evaluation.json").read_text())
    evaluation["benchmarks"]["drawn-test"] |= {"notes": [IMAGE], "sample": IMAGE}
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    epochs = [{"epoch": n, "train_loss": 1 / n, "val_loss": 1 / n, IMAGE: IMAGE} for n in (1, 2, 3)]
    (folder / "history.json").write_text(json.dumps(epochs))
    change_config(
        folder,
        lambda config: (
            config.update(label_descriptions={LABELS[0]: "evil.invalid/x.png"}, url="http://evil.invalid/config"),
            config["zoo"].update(
                recipe={"system": IMAGE, "data": {"name": IMAGE}}, icon="http://evil.invalid/icon.png"
            ),
        ),
    )
    return folder.parent


def test_every_page_asks_the_app_alone(page: Page, stranger: Path, tmp_path: Path):
    cell = tmp_path / "cell.png"
    draw_cell("monocyte", 1, (160, 160)).save(cell)
    asked: list[str] = []
    page.context.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda socket: asked.append(socket.url))
    with serving(tmp_path, HEMAZOO_ZOO=str(stranger)) as address:
        open_page(page, f"{address}/models")
        choose(page, "Model", TITLE)
        for tab in ("Curves", "Scores", "Card"):
            page.get_by_role("tab", name=tab, exact=True).click()
            settle(page)
            expect(page.get_by_role("tab", name=tab, exact=True)).to_have_attribute("aria-selected", "true")
        shown = page.get_by_role("tabpanel").filter(visible=True)
        expect(shown.get_by_role("heading", name="A card")).to_be_visible()
        assert page.locator("[src*='evil'], [srcset*='evil'], link[href*='evil'], [data*='evil'], iframe").count() == 0
        links = shown.locator("a:not([href^='#'])")
        assert links.count() >= 2
        for link in links.all():
            assert link.get_attribute("href") == link.inner_text()
            assert "noopener" in (link.get_attribute("rel") or "")
            assert link.get_attribute("target") == "_blank"
        for name in PAGES:
            visit(page, name)
            if not name:
                page.locator("input[type=file]").first.set_input_files(str(cell))
                page.get_by_text("See why").wait_for()
                settle(page)
        origin = urlsplit(address).netloc
    assert len(asked) > 20
    foreign = [url for url in asked if urlsplit(url).netloc != origin and urlsplit(url).scheme not in OWN_SCHEMES]
    assert not foreign
