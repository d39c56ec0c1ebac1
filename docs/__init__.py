"""What makes the pages: of the rules (build.py), and of the site (make_site.py)."""
