"""A finished run to look at: a page in a browser, pictures of it, a file for rerun."""
