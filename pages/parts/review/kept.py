"""Keeping a session's work on the server, under a token in the page's address: a reload brings it back.

The token stands in the address of the pages where work is done, and in no link. A visitor who opens an address gets a
new token at once: whoever sent the address cannot follow what is done from then on.
"""

from __future__ import annotations

import streamlit as st

from pages.parts import samples, session
from pages.parts.review import files, state
from pages.parts.session import KEPT_LAST as LAST
from pages.parts.session import KEPT_TOKENS, WORK
from pages.parts.wording import plain
from zoo.entry import Entry
from zoo.review import kept
from zoo.review.session_file import Review, SavedPicture, read_review, saved_decisions, write_review
from zoo.scores.sample.samples import Sample
from zoo.scores.sample.samples import samples as known_samples

GONE = "The work of this address is not kept any more."


def restore() -> None:
    """Bring back the work of the address, once a session; call it before anything of the page is drawn."""
    token = st.query_params.get(WORK)
    if token is None or KEPT_TOKENS in st.session_state:
        return
    parts = kept.find(token) if kept.hours() and kept.is_token(token) else []
    if not parts:
        del st.query_params[WORK]
        st.toast(GONE, icon=":material/history:")
        return
    for data in parts:
        if problem := files.take_review(data):
            st.toast(plain(problem), icon=":material/error:")
            return
        review, _ = read_review(data)
        if review.model:
            session.choose_model(review.model)
        if review.sample in known_samples():
            st.session_state[samples.CHOICE] = review.sample
    st.session_state[KEPT_TOKENS] = [token]


def save(entry: Entry, sample: Sample) -> None:
    """Keep what changed since the last time: the pictures, and the decisions with model and sample."""
    if not kept.hours() or not session.pictures():
        return
    tokens: list[str] = st.session_state.setdefault(KEPT_TOKENS, [])
    last: dict[str, object] = st.session_state.setdefault(LAST, {})
    review = state.state()
    shown = [(one.content, one.name) for one in session.pictures()]
    done = (review.journal, review.slide, review.reader, entry.id, sample.name)
    if last.get("pictures") == shown and last.get("decisions") == done:
        return
    if not last:
        tokens.append(kept.new_token())
    else:  # the browser has the address with the newest token by now
        for old in tokens[:-1]:
            kept.forget(old)
        del tokens[:-1]
    token = tokens[-1]
    if last.get("pictures") != shown:
        pictures = [SavedPicture(hash=one.content, name=one.name, size=(0, 0)) for one in session.pictures()]
        content = {one.upload.sha256: (one.name, one.data) for one in session.pictures()}
        if kept.keep(token, "pictures", write_review(Review(pictures=pictures), content)):
            last["pictures"] = shown
    if last.get("decisions") != done:
        decisions = saved_decisions(review.journal.decisions)
        saved = Review(
            slide=review.slide, reader=review.reader, model=entry.id, sample=sample.name, decisions=decisions
        )
        if kept.keep(token, "decisions", write_review(saved)):
            last["decisions"] = done


def show_address() -> None:
    """Put the token into the address of this page."""
    tokens = st.session_state.get(KEPT_TOKENS)
    if tokens and st.session_state.get(LAST) and st.query_params.get(WORK) != tokens[-1]:
        st.query_params[WORK] = tokens[-1]


def told() -> str:
    """Sentence on how long the work is kept."""
    if not st.session_state.get(LAST):
        return "Kept in the memory of this session only: a reload loses it."
    return f"Kept on this server for {kept.hours():g} hours under the address of this page; “Clear all” erases it."
