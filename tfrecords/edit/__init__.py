"""Changes to finished datasets: examples deleted, labeled anew, or added from other datasets, as a new version."""
