"""The choice of a sample, which holds on every page of the session, and sentences about it."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from pages.parts.wording import plain
from zoo.entry import Entry
from zoo.scores.sample.samples import ONLY, Sample, SampleError, from_counts, only_these, parse_sample, samples
from zoo.serving.results import Prediction

OWN = "my own shares"
# session keys: the option that was chosen, the kinds of ONLY, and the counts, the file or its error of OWN
CHOICE, KINDS, COUNTS, FILE, FILE_ERROR = "sample", "sample kinds", "sample counts", "sample file", "sample file error"
PICKED, PICKED_KINDS, UPLOADED = "picked sample", "picked sample kinds", "uploaded sample"  # keys of widgets
COUNT_COLUMNS = 2
HELP = (
    "Which kinds of cells to expect. The network's probabilities are multiplied by how common each kind is in such a "
    "sample. The network itself stays the same."
)


def pick_sample(entry: Entry) -> Sample:
    """Choose what the pictures are of; the default is the model's usual sample.

    A choice that cannot be used is explained beside it, and the model's usual sample is taken.
    """
    offered = _offered(entry)
    st.session_state[PICKED] = _chosen(entry)
    # no index: the session knows what was chosen, also on another page
    choice = st.selectbox(
        "Sample", [*offered, ONLY, OWN], format_func=_title, key=PICKED, on_change=_keep_choice, help=HELP
    )
    if choice == ONLY:
        _pick_kinds(entry)
    elif choice == OWN:
        _give_shares(entry)
    try:
        sample = current_sample(entry)
    except SampleError as error:
        sample = entry.default_sample
        st.warning(f"{plain(error)} Until then: {plain(sample.name)}.", icon=":material/help:")
    # a person's own sample may have no summary
    text = sample.summary or f"{_title(sample.name)}."
    st.caption(plain(text), help=_source(sample))
    return sample


def current_sample(entry: Entry) -> Sample:
    """The sample that the session chose; the model's usual one until somebody chose.

    Raises:
        SampleError: What was chosen is empty, or rules out every class of the model.
    """
    choice = _chosen(entry)
    if choice == ONLY:
        kinds = _kinds(entry)
        if not kinds:
            raise SampleError("Choose the kinds that the sample holds.")
        return only_these(kinds)
    if choice != OWN:
        return _offered(entry)[choice] if CHOICE in st.session_state else entry.default_sample
    sample = _own_sample(entry)
    entry.prior_of(sample)  # raises where it rules out every class
    return sample


def sample_for(entry: Entry) -> Sample:
    """The sample that the session chose where this model can be asked with it, else the model's usual one."""
    try:
        return current_sample(entry)
    except SampleError:
        return entry.default_sample


def about(name: str, entry: Entry, predictions: Sequence[Prediction] = ()) -> str:
    """A line below answers: the sample's name, and how many of several answers it changes."""
    text = f"Sample: {plain(described(name, entry))}."
    changed = sum(prediction.label != prediction.network_label for prediction in predictions)
    if len(predictions) > 1 and changed:
        text += f" It changes {changed} of {len(predictions)} answers."
    return text


def described(name: str, entry: Entry) -> str:
    """A sample's name with its kinds written out."""
    start = f"{ONLY}: "
    if not name.startswith(start):
        return name
    names = entry.class_names
    return start + ", ".join(names.get(kind, kind) for kind in name.removeprefix(start).split(", "))


def difference(entry: Entry, prediction: Prediction) -> str | None:
    """Sentence naming both answers where the sample changed the network's; None where it did not."""
    if prediction.label == prediction.network_label:
        return None
    names = entry.class_names
    return (
        f"With this sample: {names[prediction.label]}; the network alone says {names[prediction.network_label]} "
        f"({100 * prediction.network[prediction.network_label]:.1f} %)."
    )


def _offered(entry: Entry) -> dict[str, Sample]:
    """Samples by name that need no further input: the project's, and the model's own."""
    ready = {name: sample for name, sample in samples().items() if name != ONLY}
    ready.setdefault(entry.default_sample.name, entry.default_sample)
    return ready


def _chosen(entry: Entry) -> str:
    """Option in use: the one that was chosen where this model has it, else the model's usual sample."""
    choice = st.session_state.get(CHOICE)
    return choice if choice in {*_offered(entry), ONLY, OWN} else entry.default_sample.name


def _title(name: str) -> str:
    """An option for people."""
    text = name[0].upper() + name[1:]
    return f"{text} …" if name in (ONLY, OWN) else text


def _source(sample: Sample) -> str | None:
    return plain(sample.source) if sample.source and not sample.as_trained else None


def _keep_choice() -> None:
    st.session_state[CHOICE] = st.session_state[PICKED]


def _kinds(entry: Entry) -> list[str]:
    """The kinds that were chosen and that this model knows."""
    kept = st.session_state.get(KINDS, [])
    return [label for label in entry.labels if label in kept]


def _pick_kinds(entry: Entry) -> None:
    st.session_state[PICKED_KINDS] = _kinds(entry)
    names = entry.class_names

    def keep() -> None:
        st.session_state[KINDS] = st.session_state[PICKED_KINDS]

    st.multiselect("Kinds", entry.labels, format_func=lambda label: names[label], key=PICKED_KINDS, on_change=keep)


def _give_shares(entry: Entry) -> None:
    """A file with shares, or numbers of cells that were counted so far."""
    st.file_uploader(
        "File with shares",
        type=["toml"],
        key=UPLOADED,
        on_change=_take_file,
        help="As for `--sample`: a table `[shares]` or `[counts]` with a line for each kind, for instance "
        "`neutrophil = 61`. Where there is a file, counts are not used.",
    )
    file = st.session_state.get(FILE)
    if file is not None or st.session_state.get(FILE_ERROR):
        if st.session_state.get(UPLOADED) is None and st.button("Remove the file", icon=":material/delete:"):
            _forget_file()
            st.rerun()
        return
    names = entry.class_names
    with st.popover("Counts of earlier slides", icon=":material/tag:"):  # eight fields would fill a phone
        columns = st.columns(COUNT_COLUMNS)
    for number, label in enumerate(entry.labels):
        key = f"sample count {label}"
        st.session_state[key] = st.session_state.get(COUNTS, {}).get(label, 0)
        columns[number % COUNT_COLUMNS].number_input(
            names[label], min_value=0, step=1, key=key, on_change=_keep_count, args=(label, key)
        )


def _keep_count(label: str, key: str) -> None:
    st.session_state.setdefault(COUNTS, {})[label] = st.session_state[key] or 0


def _take_file() -> None:
    """Read the file that was given; forget the earlier one."""
    _forget_file()
    file: UploadedFile | None = st.session_state[UPLOADED]
    if file is None:
        return
    try:
        st.session_state[FILE] = parse_sample(file.getvalue(), file.name)
    except SampleError as error:
        st.session_state[FILE_ERROR] = str(error)


def _forget_file() -> None:
    st.session_state.pop(FILE, None)
    st.session_state.pop(FILE_ERROR, None)


def _own_sample(entry: Entry) -> Sample:
    """The person's own sample. Raises SampleError where there is none yet."""
    if problem := st.session_state.get(FILE_ERROR):
        raise SampleError(problem)
    file: Sample | None = st.session_state.get(FILE)
    if file is not None:
        return file
    counts = {label: st.session_state.get(COUNTS, {}).get(label, 0) for label in entry.labels}
    if not any(counts.values()):
        raise SampleError("Give a file with shares, or how many cells of each kind were counted.")
    return from_counts(counts)
