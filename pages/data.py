"""Data page: audits of data sets, with counts, copies, leaks, outliers, shortcuts and a map."""

from __future__ import annotations

import streamlit as st

from pages.parts import layout
from pages.parts.audit import views
from pages.parts.audit.audits import Offer, audit_table, bundled_pictures, list_offers, picture_urls
from pages.parts.wording import plain
from zoo.audits.reports import ReportError
from zoo.data.offered import VARIABLE


def pick_offer() -> Offer:
    """Choose an audit or a data set. Stops the page if there is none."""
    offers, problems = list_offers()
    for problem in problems:
        st.warning(plain(problem))
    if not offers:
        st.info(
            "There is no audit and no data set here. Run `python -m training audit DATA --out reports/NAME`, or name "
            f"folders in `{VARIABLE}`."
        )
        st.stop()
    names = [offer.name for offer in offers]
    return offers[names.index(st.selectbox("Data set", names))]


def show(offer: Offer) -> None:
    """Show an audit by views, or a data set that has none."""
    audit = offer.audit
    if audit is None:
        if offer.data is not None:
            views.show_unaudited(offer, offer.data)
        return
    try:
        table = audit_table(audit)
    except (ReportError, OSError) as error:
        st.error(plain(error))
        return
    report, url = audit.report, picture_urls(offer, table)
    bundled = bundled_pictures(offer, table)
    if "thumbnail" not in table and offer.data is None:
        known = f"{len(bundled):,} of {len(table):,}" if bundled else "None of its"
        st.caption(f"{known} pictures come with the program.", help=f"To see all, name its folder in {VARIABLE}.")
    by_name = {
        "Overview": lambda: views.show_overview(audit, table),
        "Samples": lambda: views.show_samples(table, url, bundled),
        "Copies": lambda: views.show_copies(report, table, url),
        "Suspects": lambda: views.show_suspects(report, table, url),
        "Shortcuts": lambda: views.show_shortcuts(report),
        "Map": lambda: views.show_map(audit, table, url),
    }
    chosen = st.segmented_control("View", list(by_name), default="Overview", label_visibility="collapsed")
    by_name[chosen or "Overview"]()


layout.page("Data", "How far a data set can be trusted: copies, leaks between its splits, label errors, shortcuts.")
show(pick_offer())
