"""The readers, one module each: resident, mapped, stream, service; `random_access` is the base of the first two."""
