"""Sources of entries, example pictures and training runs: built in, folders, the Hugging Face Hub."""
