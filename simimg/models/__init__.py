"""The models: builders of classifiers, their pretrained weights, embedders for search, and folders of trained models.

Every classifier is a functional `keras.Model` with the same interface:

    input   [batch, image_size, image_size, 3], pixels 0..255 (uint8 or float; the model scales them itself)
    output  float32 [batch, num_classes], softmax probabilities, layer "probabilities"
    inside  the layer "embedding", [batch, dim], which `embedder` reads and normalizes

`copy_model` turns a classifier into a network that is trained to find copies; its output is the normalized embedding.
`import_sscd` makes a model that is not a classifier either, and ends with the layer "embedding".

Dropout draws its masks from (seed, step, place in the global batch) while a `dropout_scope` is open. Initial weights
come from Keras's global generator, so call `keras.utils.set_random_seed` first, or two builds differ.

Its modules are imported one by one: `model_folder` describes a trained model without importing Keras.
"""
