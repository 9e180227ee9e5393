"""The fused loss on CUDA: small Triton kernels between cuBLAS products. Imported only when it is used."""
