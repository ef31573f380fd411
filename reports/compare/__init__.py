"""Two sweeps side by side: points matched by their parameters, figures with their differences."""
