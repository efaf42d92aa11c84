"""What a training begins with: usual options, checks before pictures are read, and names taken from the folder."""
