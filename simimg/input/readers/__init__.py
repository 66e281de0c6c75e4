"""The readers, one module each: resident, mapped, stream, service."""
