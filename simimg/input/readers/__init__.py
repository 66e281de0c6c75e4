"""The readers, one module each: resident, mapped, stream, service; `random_access` is what the first two share."""
