"""Published systems: what their authors showed, one file a system."""
