"""Sphinx's settings for the site. `python -m docs.make_site` builds it."""

import configparser
from pathlib import Path

HERE = Path(__file__).parent
setup_file = configparser.ConfigParser()
setup_file.read(HERE.parent / "setup.cfg", encoding="utf-8")

project = "Descent"
author = setup_file["metadata"]["author"]
version = release = setup_file["metadata"]["version"]
language = "en"
extensions = ["myst_nb", "docs.mathml", "docs.source_links"]
root_doc = "index"
highlight_language = "none"
smartquotes = False  # Docstrings have f'' and commands in quotes.

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 4
myst_url_schemes = ["http", "https", "mailto", "source"]
# The notebooks come with the outputs that they have; nothing is fetched to show them.
nb_execution_mode = "off"
nb_merge_streams = True
nb_output_stderr = "remove"
nb_ipywidgets_js = {}

html_theme = "sphinx_book_theme"
html_title = "Descent"
html_static_path = [str(HERE / "static")]
html_css_files = ["site.css"]
html_copy_source = False
html_math_renderer = "mathml"
# A summary of each search result would be fetched, which a page from disk may not do.
html_show_search_summary = False
html_context = {"default_mode": "auto"}
html_theme_options = {
    "use_download_button": False,
    "use_fullscreen_button": False,
    "show_toc_level": 2,
    "home_page_in_toc": True,
    # No bar above the page.
    "navbar_start": [],
    "navbar_center": [],
    "navbar_end": [],
    "navbar_persistent": [],
}
