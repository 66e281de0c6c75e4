"""What makes pixels: formats, decoders, color, resampling, and hashes of the pixels."""
