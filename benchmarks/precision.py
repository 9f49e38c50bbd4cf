"""float32 as it is, or TF32: the same setting on all sides.

In TF32 the factors of a product have ten bits behind the point instead of 23; sums are float32.
"""

PRECISIONS = ("fp32", "tf32")


def ours(name):
    """Of scratchgen's products and convolutions."""
    from scratchgen.kernels.gemm_chooser import allow_tf32
    allow_tf32(name == "tf32")


def cupy(xp, name):
    """Of cuBLAS, called through CuPy."""
    from cupy._core import _routines_linalg as routines
    routines.set_compute_type(xp.float32, routines.COMPUTE_TYPE_TF32 if name == "tf32" else
                              routines.COMPUTE_TYPE_FP32)


def torch(name):
    import torch
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = name == "tf32"
    torch.backends.cudnn.benchmark = True


def jax(name):
    import jax
    jax.config.update("jax_default_matmul_precision",
                      "tensorfloat32" if name == "tf32" else "float32")
