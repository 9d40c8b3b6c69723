"""The optional kernels in C; everything else is said in pyproject.toml."""

from pathlib import Path

from setuptools import Extension, setup

# OpenMP is switched on but not linked: its functions are found in the library that torch brings (fastseg/native.py).
setup(
    ext_modules=[
        Extension(
            "fastseg._native",
            sorted(str(path) for path in Path("fastseg/csrc").glob("*.c")),
            depends=sorted(str(path) for path in Path("fastseg/csrc").glob("*.h")),
            extra_compile_args=["-O3", "-std=c11", "-fopenmp", "-fno-math-errno"],
            optional=True,
        )
    ]
)
