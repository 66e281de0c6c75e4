"""Reports for people: charts, contact sheets and HTML pages. Nothing in this package imports TensorFlow."""
