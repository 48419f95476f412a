"""Speed: the fused file against the original and its op, timed on a device or read off the compiled kernels."""
