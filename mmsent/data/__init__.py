"""Posts in: reading, checking and copying data sets, cleaning texts, decoding images, finding duplicates."""
