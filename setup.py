"""The package's metadata. Tool settings are in ``pyproject.toml``."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def version():
    """The one ``__version__`` line of the package, read without importing it."""
    for line in (HERE / "scratchgen" / "__init__.py").read_text(encoding="utf-8").splitlines():
        if line.startswith("__version__"):
            return line.split("=")[1].strip().strip("\"'")
    raise SystemExit("scratchgen/__init__.py has no __version__ line")


TEST = ["pytest>=8", "pytest-xdist", "hypothesis", "coverage", "ruff", "pyright[nodejs]",
        "nvidia-cuda-nvrtc; sys_platform == 'linux'"]

setup(
    name="scratchgen",
    version=version(),
    description="Denoising autoencoders, VAEs and GANs from scratch: every gradient written out",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="scratchgen developers",
    license="MIT",
    license_files=["LICENSE", "scratchgen/data/mnist-mini/LICENSE*"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Education",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    python_requires=">=3.11",
    install_requires=[
        "numpy>=2",
        "numba>=0.61",
        "matplotlib>=3.9",
        "pillow>=10",
        "platformdirs>=4.12",
        "safetensors>=0.5",
        "jinja2>=3.1",
        "typer>=0.29",
        "rich>=13",
        "tomli_w>=1",
    ],
    extras_require={
        "cuda12": ["cupy-cuda12x"],
        "cuda13": ["cupy-cuda13x"],
        "bench": ["torch==2.13.0", "jax==0.10.2"],    # the versions of the records on the CPU
        "test": TEST,
        "docs": ["mkdocs-material", "mkdocstrings[python]"],
    },
    # The folder kernels/ is installed inside the package: a top-level name `kernels` belongs to
    # another distribution. It has no __init__.py, so that nothing can import it under that name.
    packages=[*find_packages(include=["scratchgen", "scratchgen.*"]), "scratchgen.kernels"],
    package_dir={"scratchgen.kernels": "kernels"},
    package_data={"scratchgen": ["data/mnist-mini/*", "report/page.html", "py.typed"],
                  "scratchgen.kernels": ["*.cu"]},
    entry_points={"console_scripts": ["scratchgen = scratchgen.cli:main"]},
)
