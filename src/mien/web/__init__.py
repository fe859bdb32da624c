"""A page on one's own machine: drop a photo, see what the models tell of its faces."""
