"""Build the pages of the rules (build.py) and the site (make_site.py)."""
