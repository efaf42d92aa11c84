"""Sources of entries, example pictures and training runs: built in, folders, the Hugging Face Hub."""

HUB_PREFIX = "hub:"  # before a place on the Hub, where folders may stand as well
