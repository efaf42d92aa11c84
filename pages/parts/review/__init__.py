"""The review of cells on the Classify page: found, shown, corrected, counted, reported."""
