"""Running of entries: loaded models, the engine, out-of-distribution detection, batches of files."""
