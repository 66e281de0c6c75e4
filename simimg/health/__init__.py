"""The health of a collection: labels, outliers, image quality, classes and splits. Nothing here imports TensorFlow."""
