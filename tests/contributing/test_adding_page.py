"""A page is one file in `pages` and its line in `app.py`."""

from __future__ import annotations

import json

PAGE = '''"""Letters page: counts the letters of a word."""

import streamlit as st

from pages.parts import layout

layout.page("Letters")
st.markdown(f"{len(st.text_input('Word', 'monocyte'))} letters")
'''
LINE = '    st.Page("pages/letters.py", title="Letters", icon=":material/abc:"),\n'

# opens the page as a session does, in a process of its own, because the copy has another package called pages
OPEN = """
import json
from streamlit.testing.v1 import AppTest

app = AppTest.from_file("app.py", default_timeout=120).run()
first = app.title[0].value
app.switch_page("pages/letters.py").run()
texts = {"first": first, "title": app.title[0].value, "errors": [str(one.value) for one in app.exception]}
print(json.dumps(texts | {"markdown": [one.value for one in app.markdown]}))
"""


def test_a_new_page_opens_beside_the_others(project_copy):
    project_copy.write("pages/letters.py", PAGE)
    routes = project_copy.folder / "app.py"
    before, last, after = routes.read_text(encoding="utf-8").partition("    st.Page(")
    routes.write_text(before + LINE + last + after, encoding="utf-8")
    # the default page stays the first one that a visitor sees
    shown = json.loads(project_copy.python("-c", OPEN))
    assert shown["first"] == "Classify blood cells"
    assert shown["title"] == "Letters"
    assert not shown["errors"]
    assert "8 letters" in shown["markdown"]
