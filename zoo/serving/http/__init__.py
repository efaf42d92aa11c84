"""The engine over HTTP: `python -m zoo serve`."""
