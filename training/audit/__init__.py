"""Can this data set be trusted? One pass over its pictures, then questions asked of what was measured."""
