"""Pictures as they come in and as they are shown."""
