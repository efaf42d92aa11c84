"""TIFF files: directories, pages, stacks, pyramids and channels."""
