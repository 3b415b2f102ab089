from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="lmmvqa",
    version="0.1.0",
    description="Blind video quality assessment with large multimodal models, native to Hugging Face",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["lmmvqa*", "modeling_lmmvqa*", "processing*", "dataset_builders*", "hub_cards*"]),
    package_data={
        "lmmvqa": ["checkpoint/**/*", "training/recipes/*.yaml", "training/accelerate/*.yaml"],
        "hub_cards": ["*.md", "*.jinja"],
    },
    entry_points={"console_scripts": ["lmmvqa = lmmvqa.cli:app"]},
    install_requires=[
        "accelerate>=1.15",
        "av>=14",
        "datasets>=5.0",
        # Its wheels are for x86-64 only; PyAV reads everything that it reads.
        'decord>=0.6; platform_machine == "x86_64" or platform_machine == "AMD64"',
        "evaluate>=0.4.6",
        "gguf>=0.17",
        "huggingface_hub>=2.0",
        "jinja2>=3.1",
        "numpy>=2.0",
        "openpyxl>=3.1",
        "pandas>=2.2",
        "peft>=0.21",
        "pillow>=10.0",
        "pyarrow>=21.0",
        "pytorchvideo>=0.1.5",
        "pyyaml>=6.0",
        "rich>=13.9",
        "safetensors>=0.6",
        "scipy>=1.13",
        "torch>=2.6",
        "torchvision>=0.21",
        "transformers>=5.23",
        "typer>=0.19",
    ],
    extras_require={
        "plots": ["matplotlib>=3.8"],
        "ladder": ["imageio-ffmpeg>=0.6"],
        "dev": ["imageio-ffmpeg>=0.6", "matplotlib>=3.8", "optimum-quanto>=0.2.7", "pytest>=8.0", "ruff>=0.9", "tensorboard>=2.16"],
    },
)
