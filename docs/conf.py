"""The site: the executed lessons and the pages of docs/, built by `make site` without a network.

Run from the folder that `docs/build_site.py` assembles, which mirrors the repository, so that links between
notebooks and pages are the same here and there.
"""

project = "gpt-oss, opened up"
author = "the gptoss-jax authors"
extensions = ["myst_nb", "sphinx-mathjax-offline"]
exclude_patterns = ["notebooks/exercises", "notebooks/solutions"]
root_doc = "index"
nb_execution_mode = "off"  # the committed outputs are those that the tests compare
nb_mime_priority_overrides = [("html", "text/html", 15)]
nb_code_prompt_show = "Show the solution"
nb_code_prompt_hide = "Hide the solution"
myst_enable_extensions = ["dollarmath", "amsmath", "attrs_inline"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header", "myst.xref_missing"]
html_theme = "pydata_sphinx_theme"
html_title = project
html_static_path = ["_static"]
html_css_files = ["course.css"]
html_js_files = ["course.js"]
html_show_sourcelink = False
html_show_search_summary = False  # snippets are fetched, which a page opened from disk may not do
html_copy_source = False
html_last_updated_fmt = None
html_theme_options = {
    "navigation_with_keys": False,
    "show_prev_next": True,
    "show_toc_level": 2,
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": [],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
