"""First steps of a training: usual options, checks before pictures are read, and names taken from the folder."""
