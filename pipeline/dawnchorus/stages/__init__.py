"""The stages of the graphs: plain callables, columns in, columns out. None of them imports Ray."""
