"""One world for the windows of a clip, and metres."""
