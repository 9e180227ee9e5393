"""The loss head on CUDA: small Triton kernels between cuBLAS products. Imported only where it is used."""
