"""The CUDA backend, checked and measured on a GPU in one call of less than nine minutes.

    python -m benchmarks gpu [all | first-checks | first-speed | again] --out DIR [--seconds S]
                             [--quick] [--earlier GPU.JSON] [--data-dir FOLDER] [--dry-run]
                             [--parts A,B] [--rows A,B] [--peers A,B]

``scheduler.py`` runs the parts, each in a process of its own, and writes ``gpu.json``; the parts
are in ``checks.py``, ``training.py``, ``kernel_times.py``, ``mnist.py`` and ``steps.py``.
Nothing here needs Numba, and a library that is missing is a row that says so.
"""
