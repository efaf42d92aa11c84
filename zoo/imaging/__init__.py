"""Decoding of pictures, localisation of the cell, and preprocessing into network inputs."""
