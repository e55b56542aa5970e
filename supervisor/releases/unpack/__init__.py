"""An archive becomes a tree: our own reader, in a child with limits, one pass, nothing written outside its folder."""
