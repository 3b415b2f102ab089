import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (HERE / "lmmvqa/__init__.py").read_text(encoding="utf-8"), re.MULTILINE)

# What `install_requires` leaves out, by what it is for. Scoring with the default checkpoint needs none of it.
EXTRAS = {
    # The network itself: GPUs, other checkpoints, exports; and what all that trains or evaluates it needs.
    "torch": [
        "accelerate>=1.15",
        "datasets>=5.0",
        "huggingface_hub>=2.0",
        "jinja2>=3.1",
        "onnx>=1.17",
        "onnx-ir>=0.1.10",
        "onnxscript>=0.5",
        "pandas>=2.2",
        "peft>=0.21",
        "pytorchvideo>=0.1.5",
        "torch>=2.9",
        "torchvision>=0.24",
        "transformers>=5.24",
    ],
    "training": ["lmmvqa[torch]", "scipy>=1.13"],
    "evaluation": [
        "lmmvqa[torch]",
        "evaluate>=0.4.6",
        "matplotlib>=3.9",
        # Label files of YouTube-UGC are Excel tables.
        "openpyxl>=3.1",
        "scikit-image>=0.25",
        "scipy>=1.13",
    ],
    "demo": ["lmmvqa[torch]", "gradio>=6.0"],
    "bulk": ["lmmvqa[torch]", "ray[data]>=2.50", "s3fs>=2025.9"],
    "serve": [
        "fastapi>=0.115",
        "prometheus-client>=0.21",
        "python-multipart>=0.0.20",
        "swagger-ui-bundle>=1.1",
        "uvicorn>=0.34",
    ],
    # Making the default checkpoint: copies, the tower's parts, opinions.
    "copies": ["lmmvqa[torch]", "imageio-ffmpeg>=0.6", "scikit-learn>=1.5", "scipy>=1.13"],
    # A second decoder. Its wheels are for x86-64 only; PyAV reads everything that it reads.
    "decord": ['decord>=0.6; platform_machine == "x86_64" or platform_machine == "AMD64"'],
}
TESTS = [
    "build>=1.2",
    "moto[server]>=5.1",
    "mypy>=1.15",
    "optimum-quanto>=0.2.7",
    "playwright>=1.50",
    "pre-commit>=4.0",
    "pytest>=8.0",
    "pytest-xdist>=3.6",
    "ruff>=0.9",
    "schemathesis>=4.0",
    "tensorboard>=2.16",
]

ALL_EXTRAS = {need for needs in EXTRAS.values() for need in needs if not need.startswith("lmmvqa[")}

setup(
    name="lmmvqa",
    version=VERSION[1],
    description="Blind video quality assessment with large multimodal models, native to Hugging Face",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["lmmvqa*", "modeling_lmmvqa*", "processing*", "dataset_builders*", "hub_cards*"]),
    py_modules=["lmmvqa_command"],
    package_data={
        "lmmvqa": [
            "checkpoints/default/**/*",
            "demo/examples/*",
            "demo/requirements.txt",
            "training/recipes/*.yaml",
            "training/accelerate/*.yaml",
            "evaluation/*.csv",
            "evaluation/*.yaml",
            "evaluation/*.jinja",
            "evaluation/vqa_metric/*",
        ],
        "hub_cards": ["*.md", "*.jinja"],
    },
    entry_points={"console_scripts": ["lmmvqa = lmmvqa_command:run"]},
    install_requires=[
        "av>=14",
        "fsspec[http]>=2025.3",
        "gguf>=0.17",
        "numpy>=2.0",
        "onnxruntime>=1.22",
        "pillow>=10.0",
        "psutil>=6.0",
        "pyarrow>=21.0",
        "pyyaml>=6.0",
        "rich>=13.9",
        "safetensors>=0.6",
        "typer>=0.19",
    ],
    extras_require={**EXTRAS, "dev": sorted({*TESTS, *ALL_EXTRAS})},
)
