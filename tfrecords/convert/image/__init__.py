"""From files to pixels: formats, decoders, color, resampling, and hashes of the pixels."""
