"""One question a file; `python -m experiments` lists them."""
