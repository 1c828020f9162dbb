"""Data sets as two safetensors files, their splits as CSV, and batches on the device."""
