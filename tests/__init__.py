"""Tests mirror the packages; shared pieces are imported as `tests.<folder>.<name>`."""
