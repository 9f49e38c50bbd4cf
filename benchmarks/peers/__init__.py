"""The peers: one module for each library, each with the classes ``Peer`` and ``CudaPeer``.

    Peer(workload, **variant)     build it; ``reset(lr)`` gives it the initial weights
    step(i)                             one training step on batch i; may return before it is done
    wait()                              until it is done
    losses()                            (steps, terms) since the reset
    gradients()                         of the first step: (network, i, parameter) → array
    parameters()                        the weights now, likewise

Arrays come back in the convention of ``workloads``. Each peer runs in a process of its own,
on as many cores as there are threads (its affinity is set before anything is imported) and with
the library's own setting for threads. scratchgen runs with its defaults.
"""

import importlib.util

MODULES = {"scratchgen": "scratchgen", "numpy": "scratchgen", "torch": "torch",
           "torch-compile": "torch", "jax": "jax"}
NEEDS = {"torch": "torch", "torch-compile": "torch", "jax": "jax"}
PEERS = ("torch", "torch-compile", "jax", "numpy")
TITLES = {"torch": "PyTorch", "torch-compile": "torch.compile", "jax": "JAX jit",
          "numpy": "scratchgen, NumPy backend"}
# who keeps on disk what it compiles → the variable that names the folder
CACHES = {"scratchgen": "NUMBA_CACHE_DIR", "torch-compile": "TORCHINDUCTOR_CACHE_DIR"}
THREAD_SETTINGS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
                   "NUMBA_NUM_THREADS", "NUMEXPR_NUM_THREADS", "XLA_FLAGS", "OMP_WAIT_POLICY",
                   "NUMBA_THREADING_LAYER", "GOMP_SPINCOUNT")


def variants(name, workload):
    """label → options of a peer's variants; the fastest of a peer's is the one to beat.

    "joined": a GAN's discriminator sees real and generated images as one batch (without batch norm
    the same numbers).
    """
    conv = workload.family == "conv"
    joined = workload.kind == "gan" and not conv
    if name == "torch":
        found = {"fused": {"optimiser": "fused"}, "foreach": {"optimiser": "foreach"}}
        if conv:
            found |= {"fused, channels last": {"optimiser": "fused", "channels_last": True},
                      "foreach, channels last": {"optimiser": "foreach", "channels_last": True}}
        return found | ({"fused, joined": {"optimiser": "fused", "joined": True}} if joined else {})
    if name == "torch-compile":
        options = {"compiled": True, "optimiser": "fused"}
        found = {"fused": options}
        if conv:
            found["fused, channels last"] = options | {"channels_last": True}
        return found | ({"fused, joined": options | {"joined": True}} if joined else {})
    if name == "jax":
        found = {"jit": {}}
        if conv:
            found = {"NHWC": {}, "NCHW": {"layout": "NCHW"}}
        return found | ({"joined": {"joined": True}} if joined else {})
    return {"": {"backend": "numpy"} if name == "numpy" else {}}


def missing(name):
    """The library that a peer lacks, or None."""
    library = NEEDS.get(name)
    return library if library and importlib.util.find_spec(library) is None else None


def environment(name, threads):
    """The variables that are set for its process; all other settings of threads are removed."""
    if name == "jax":
        flags = {} if threads > 1 else {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
        return {"JAX_PLATFORMS": "cpu", **flags}
    if name in ("torch", "torch-compile"):
        return {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    return {}
