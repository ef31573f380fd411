"""The plots of a report, one a file: pure functions from a sweep to what is drawn; matplotlib is imported when it is."""
