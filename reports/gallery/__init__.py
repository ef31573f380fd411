"""Reports of real sweeps, drawn from the snapshots that are kept beside them: `python -m reports.gallery` draws them again."""
