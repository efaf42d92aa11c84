"""A server whose secrets name an identity provider asks its visitors to log in."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

ROOT = Path(__file__).parents[2]
PROVIDER = {"redirect_uri": "http://127.0.0.1/oauth2callback", "cookie_secret": "a secret of a test"}


@pytest.mark.parametrize("asked", [True, False])
def test_pages_wait_for_a_login_where_one_is_set_up(zoo_environment, asked):
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    if asked:
        app.secrets["auth"] = PROVIDER
    app.run()
    assert not app.exception
    assert [title.value for title in app.title] == (["Log in"] if asked else ["Classify blood cells"])
    assert ("Log in" in [button.label for button in app.button]) is asked
    assert any("Not a medical device" in caption.value for caption in app.caption)
