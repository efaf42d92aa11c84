"""What several pages need: the model in use, the pictures at hand, and how probabilities are drawn."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go
import streamlit as st
from PIL import Image
from streamlit import runtime
from streamlit.runtime.pages_manager import PagesManager
from streamlit.runtime.scriptrunner import get_script_run_ctx

from zoo import entry as zoo_entry
from zoo.api import default_runtime
from zoo.benchmarks.leaderboard import cells, home_benchmark
from zoo.entry import AnyEntry, BrokenEntry, Entry, EntryError, Metric
from zoo.imaging.decode import SUFFIXES, ImageError, decode
from zoo.scores.bootstrap import Interval
from zoo.scores.metrics import METRICS
from zoo.serving.devices import device_name
from zoo.serving.requests import Client, Ticket
from zoo.serving.runtime import Prediction
from zoo.sources import hub
from zoo.sources.catalogue import distinct_titles, list_entries

MODEL, PICTURES = "model", "pictures"  # keys of what a session keeps from page to page
INSIDE = "inside app.py"  # set by app.py
LEFT_OUT = "left out"  # how many pictures found no room
MOST_PICTURES, MOST_BYTES = 1000, 500_000_000  # of a session
UPLOADED, TURN = "uploaded", "uploader turn"
OWN = "own"  # entries that this session made itself
PINS = "revisions"  # commits of the Hub that this session chose, by entry
REFRESH_SECONDS = 5  # how long a new entry may take to appear
THUMBNAIL = 64  # pixels
ACCENT, MUTED = "#b5123e", "#b9a3ab"
CHART = {"displaylogo": False, "modeBarButtonsToRemove": ["zoom2d", "pan2d", "select2d", "lasso2d", "autoScale2d"]}


@dataclass(frozen=True)
class Picture:
    """A picture of this session; `id` is unique for its content."""

    id: str
    name: str
    data: bytes
    credit: str = ""


@st.cache_resource(ttl=REFRESH_SECONDS, show_spinner="Looking what models there are …")
def _listed() -> list[AnyEntry]:
    """The zoo's entries, read again every few seconds: what can be used first, others' systems after ours.

    Of these the single model that holds up best in a laboratory it never saw comes first: it is what a visitor meets;
    ensembles take as long as all their members.
    """
    return sorted(list_entries(), key=_rank)


def _rank(entry: AnyEntry) -> tuple[bool, str, bool, float, float]:
    """Sorting key of an entry."""
    if isinstance(entry, BrokenEntry):
        return True, "", False, 0.0, 0.0
    return not entry.usable, entry.system, bool(entry.members), -at(entry, "away"), -at(entry, "home")


def entries() -> list[AnyEntry]:
    """The zoo's entries as this session sees them: its own first, those from the Hub at revisions that it chose."""
    pins = st.session_state.get(PINS, {})
    listed = [_pinned(entry.id, pins[entry.id]) or entry if entry.id in pins else entry for entry in _listed()]
    return [*st.session_state.get(OWN, []), *listed]


def renew() -> None:
    """Look again what entries there are."""
    _listed.clear()


@st.cache_resource(max_entries=64, show_spinner=False)
def _pinned(name: str, sha: str) -> Entry | None:
    """An entry of the Hub at another commit; None if it is none there."""
    found = hub.entry_at(name.replace("--", "/"), sha)
    return found if isinstance(found, Entry) else None


def pin(entry: Entry, sha: str | None) -> None:
    """Let this session use an entry from the Hub at a commit; None for what the Hub's main is."""
    pins = st.session_state.setdefault(PINS, {})
    pins.pop(entry.id, None)
    if sha:
        pins[entry.id] = sha


def fetched(entry: Entry) -> Entry:
    """The entry with its weights on this computer; they come with a progress bar. Stops the page if they cannot."""
    parts = [part for part in entry.members or (entry,) if isinstance(part.origin, hub.Remote)]
    if all(part.origin.is_local(name) for part in parts for name in hub.NEEDED_FILES):
        return entry
    bar = st.progress(0.0, f"Fetching {plain(entry.title)} from the Hub …")

    def watch(done: int, size: int) -> None:
        bar.progress(done / size, f"Fetching {plain(entry.title)}: {done / 1e6:.1f} of {size / 1e6:.1f} MB")

    try:
        return hub.fetch(entry, watch)
    except EntryError as error:
        st.error(plain(error), icon=":material/cloud_off:")
        st.info("Choose another model, or try again later.")
        st.stop()
    finally:
        bar.empty()


def at(entry: Entry, column: str) -> float:
    """The entry's value in a column of the leaderboard; 0 where there is none."""
    found = cells(entry).get(column)
    return found.value if found else 0.0


def usable_entries() -> list[Entry]:
    """Entries that can classify. Stops the page with a sentence if there is none."""
    found = zoo_entry.usable_entries(entries())
    if not found:
        st.info(
            "The zoo has no model that can run. Name folders with entries in HEMAZOO_ZOO, or see **Models** for why."
        )
        st.stop()
    return found


def page(title: str) -> None:
    """Begin a page: its title, and app.py around it.

    Until app.py has run once, Streamlit takes a folder called pages for its old kind of app, and would serve the first
    visitors of, say, /models that file alone.
    """
    if not st.session_state.get(INSIDE):
        PagesManager.uses_pages_directory = False
        st.rerun()
    st.title(title)


def footer() -> None:
    """What stands below every page: what this is not, and how busy the engine is."""
    st.caption("For research, teaching and engineering. HemaZoo is **not a medical device**: do not diagnose with it.")
    load = default_runtime().status()
    if load.answered:
        st.caption(
            f"Engine: {load.waiting} waiting, {load.images_per_second:.1f} pictures a second, {load.batch_size:.1f} in "
            f"a batch; half are answered within {1000 * load.p50:.0f} ms, 95 % within {1000 * load.p95:.0f} ms.",
            help="Of all sessions, over the last 30 seconds (waiting, a second) and the last 2,000 pictures.",
        )


def plain(text: object) -> str:
    """Text from outside inside Markdown, with nothing in it that Markdown would act on."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]()#+-.!|~<>$:" else c for c in str(text))


def percent(metric: Metric | Interval) -> str:
    """A metric in percent with its interval."""
    if metric.low is None or metric.high is None:
        return f"{100 * metric.value:.1f} %"
    return f"{100 * metric.value:.1f} % ({100 * metric.low:.1f} to {100 * metric.high:.1f})"


def client() -> Client:
    """This session, as the engine knows it: it takes turns with others, and what it leaves behind is dropped."""
    context = get_script_run_ctx()
    if context is None or not runtime.exists():
        return Client("no session")
    session, app = context.session_id, runtime.get_instance()
    return Client(session, lambda: app.is_active_session(session))


def progress_of(ticket: Ticket) -> str:
    """How long a request will take, in words: how many are ahead, or how far it is."""
    runtime = default_runtime()
    ahead, rate = runtime.engine.ahead(ticket), runtime.status().images_per_second
    if ahead:
        return f"{ahead} requests are ahead" + (f", about {ahead / rate:.0f} s …" if rate > 0 else " …")
    return f"{100 * ticket.progress:.0f} % …"


def pick_model() -> Entry:
    """The model picker; what is picked stays picked on every page of the session."""
    found = usable_entries()
    ids = [entry.id for entry in found]
    current = st.session_state.get(MODEL)
    named = distinct_titles(found)
    picked = st.selectbox(
        "Model",
        ids,
        index=ids.index(current) if current in ids else 0,
        format_func=lambda name: named[name],
        help="All models of the zoo that can run here. **Models** shows their cards.",
    )
    st.session_state[MODEL] = picked
    entry = fetched(found[ids.index(picked)])
    st.caption(f"{describe(entry)} Runs on **{device_name(default_runtime().device)}**.")
    with st.popover("What each is good at", icon=":material/help:"):
        st.markdown("\n".join(f"- **{plain(named[other.id])}**: {describe(other)}" for other in found))
    return entry


def describe(entry: Entry) -> str:
    """One paragraph: what the model is good at, and how good."""
    known, text = entry.evaluation.benchmarks, plain(entry.config.zoo.summary)
    home, away = known.get(home_benchmark(entry) or ""), cells(entry).get("away")
    if home and "accuracy" in home.metrics:
        shown = f"{percent(home.metrics['accuracy'])} on {plain(home.title)}"
        text += f" Accuracy {shown}: {home.n_images:,} images, {home.n_cells:,} cells."
    if away:
        shown = percent(Metric(value=away.value, low=away.low, high=away.high))
        text += f" In a laboratory that it never saw {shown}, balanced ({plain(known[away.benchmark].title)})."
    return text


def pictures() -> list[Picture]:
    """The pictures of this session, in the order they came."""
    return list(st.session_state.setdefault(PICTURES, {}).values())


def add_picture(name: str, data: bytes, credit: str = "") -> str:
    """Keep a picture for all pages; returns its id. The same content under the same name is kept once.

    A session that is full keeps what it has; `picture_input` says so.
    """
    identity = hashlib.sha256(name.encode() + b"\0" + data).hexdigest()[:24]
    kept = st.session_state.setdefault(PICTURES, {})
    if identity not in kept and (
        len(kept) >= MOST_PICTURES or sum(len(one.data) for one in kept.values()) + len(data) > MOST_BYTES
    ):
        st.session_state[LEFT_OUT] = st.session_state.get(LEFT_OUT, 0) + 1
        return identity
    kept[identity] = Picture(identity, name, data, credit)
    return identity


def picture_input(page: str) -> None:
    """Upload, camera and a way to clear; pictures stay when the page is left. `page` keeps two pages' widgets apart."""
    turn = st.session_state.setdefault(TURN, 0)
    key = f"uploader {page} {turn}"
    if key not in st.session_state:
        # a new uploader owns nothing: earlier pictures must not vanish with its next change
        st.session_state[UPLOADED] = {}
    st.file_uploader(
        "Pictures of single cells or smear fields",
        type=[suffix[1:] for suffix in SUFFIXES],
        accept_multiple_files=True,
        key=key,
        on_change=_take_uploads,
        args=(key,),
        help="JPEG, PNG, BMP, WebP, TIFF (also 16-bit and float) or GIF; at most 20 MB and 50 megapixels each.",
    )
    if left_out := st.session_state.pop(LEFT_OUT, 0):
        st.warning(
            f"{left_out} pictures were left out: a session keeps {MOST_PICTURES:,} pictures and {MOST_BYTES // 10**6} "
            "MB at most. Clear some, or classify whole folders with `python -m zoo classify`."
        )
    left, right = st.columns([3, 1], vertical_alignment="center")
    with left:
        if st.toggle("Use the camera", help="For a phone held to the eyepiece, for example."):
            shot = st.camera_input("Camera", key=f"camera {page} {turn}", label_visibility="collapsed")
            if shot:
                data = shot.getvalue()
                add_picture(f"camera-{hashlib.sha256(data).hexdigest()[:6]}.jpg", data)
    with right:
        if pictures() and st.button("Clear all", icon=":material/delete:", width="stretch"):
            st.session_state[PICTURES] = {}
            st.session_state[TURN] = turn + 1
            st.rerun()


def _take_uploads(key: str) -> None:
    """Add the files that came, drop those the user took out of the uploader."""
    before = st.session_state.get(UPLOADED, {})
    now = {}
    for file in st.session_state[key]:
        now[file.file_id] = before.get(file.file_id) or add_picture(file.name, file.getvalue())
    for gone in set(before.values()) - set(now.values()):
        st.session_state[PICTURES].pop(gone, None)
    st.session_state[UPLOADED] = now


@st.cache_data(max_entries=256, show_spinner=False)
def decoded(identity: str, _data: bytes) -> Image.Image | str:
    """The picture as the model sees it, or the sentence why it cannot be read."""
    try:
        return decode(_data)
    except ImageError as error:
        return str(error)


@st.cache_data(max_entries=4096, show_spinner=False)
def thumbnail(identity: str, _data: bytes) -> str:
    """A small JPEG of the picture as a data URL; empty if it cannot be read."""
    image = decoded(identity, _data)
    if isinstance(image, str):
        return ""
    small = image.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def probability_bars(entry: Entry, prediction: Prediction) -> go.Figure:
    """One horizontal bar a label, the most probable on top."""
    ranked = sorted(prediction.probabilities.items(), key=lambda item: item[1])
    labels, shares = [name for name, _ in ranked], [share for _, share in ranked]
    figure = go.Figure(
        go.Bar(
            x=shares,
            y=labels,
            orientation="h",
            text=[f"{100 * share:.1f} %" for share in shares],
            textposition="auto",
            marker_color=[ACCENT if label == prediction.label else MUTED for label in labels],
            hovertext=[entry.describe(label) for label in labels],
            hovertemplate="%{hovertext}<br>%{x:.2%}<extra></extra>",
        )
    )
    figure.update_layout(
        height=46 + 30 * len(labels),
        margin={"l": 0, "r": 0, "t": 4, "b": 4},
        xaxis={"range": [0, 1], "tickformat": ".0%", "fixedrange": True},
        yaxis={"fixedrange": True, "automargin": True},
        showlegend=False,
    )
    return figure


def csv(table: pd.DataFrame) -> bytes:
    """The table as UTF-8 CSV."""
    return table.to_csv(index=False).encode("utf-8")


def png(image: Image.Image) -> bytes:
    """The picture as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def png_url(image: Image.Image) -> str:
    """The picture as a data URL."""
    return "data:image/png;base64," + base64.b64encode(png(image)).decode()


def warn_of_strangers(entry: Entry, prediction: Prediction) -> None:
    """Say so where a picture is unlike what the model knows."""
    if prediction.familiarity == "unknown":
        st.error(
            f"**Like no cell that was seen in any laboratory** (distance {prediction.distance:.1f}, 2 at most): do not "
            "believe its class. Show it one stained cell, in focus, about as large as in its training pictures.",
            icon=":material/block:",
        )
    elif prediction.familiarity == "shifted":
        st.warning(
            f"**Unlike the cells this model was trained on** (distance {prediction.distance:.1f}, 1 at most): another "
            f"laboratory, stain or camera, or no cell. {elsewhere(entry)}",
            icon=":material/help:",
        )


def say_how_sure(entry: Entry, prediction: Prediction) -> None:
    """How sure an answer is in a laboratory that the model never saw, where that was measured."""
    told = entry.other_laboratories
    if told is None or prediction.unseen_confidence is None:
        return
    places = " and ".join(f"{100 * found.value:.0f} % in {plain(name)}" for name, found in told.balanced.items())
    st.caption(
        f"**{100 * prediction.unseen_confidence:.0f} % sure** if the picture is from a laboratory that this model "
        f"never saw: models like it, trained without one of its laboratories, were right there in {places} (balanced)."
    )


def elsewhere(entry: Entry) -> str:
    """What the entry's answers are worth in another laboratory, as far as was measured."""
    away = cells(entry).get("away")
    if away is None:
        return "How often it is right elsewhere was not measured: check its answers."
    title = entry.evaluation.benchmarks[away.benchmark].title
    return f"Elsewhere it was right in {100 * away.value:.0f} % ({title}, balanced): check its answers."


def chunks(items: Sequence, size: int) -> Iterator[Sequence]:
    """Consecutive parts of at most `size` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def scores_table(named: Mapping[str, Mapping[str, Metric]], metrics: Iterable[str]) -> pd.DataFrame:
    """One row a metric, one column a model, cells in words with intervals."""
    rows = []
    for metric in metrics:
        cells = {name: score_text(metric, found[metric]) if metric in found else "–" for name, found in named.items()}
        rows.append({"score": METRICS[metric].title, **cells})
    return pd.DataFrame(rows)


def score_text(name: str, metric: Metric | Interval) -> str:
    """A score in words, with its interval: shares in percent, others (log loss, AUC, kappa) as numbers."""
    if name in METRICS and not METRICS[name].percent:
        return f"{metric.value:.3f} ({metric.low:.3f} to {metric.high:.3f})"
    return percent(metric)
