"""The engine: tensors, the backward pass, memory, backends, random numbers, recording.

``tensor.py`` is what a user holds, ``backward.py`` the graph and its traversal, ``backend.py`` the
choice of kernels, ``memory.py`` the arrays of either device, ``random.py`` the streams of random
numbers, ``capture.py`` the recording of a step on a GPU.
"""
