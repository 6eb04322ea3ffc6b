"""One world for the windows of a clip, in metres where something says how long they are."""
