"""Numbers of pictures that an adaptation takes."""

MIN_CELLS = 5  # labelled cells of a class
MIN_UNLABELLED = 2 * MIN_CELLS  # pictures, where none has a label
MAX_PICTURES = 400  # also the number of pictures times views
