"""Runs over many folders of frames with engines that are loaded once, and the page that lists their results."""
