"""Builders that turn sets of rated videos, as their owners release them, into question-and-answer data.

After `register()`, which `import lmmvqa` calls, `load_dataset("lsvq", "score_and_level", data_dir=...)` works. The
classes work by themselves too: `dataset_builders.lsvq.Lsvq(config_name="score", data_dir=...).download_and_prepare()`.
"""

from __future__ import annotations

from typing import Any

RATED_SETS = (
    "lsvq",
    "konvid_1k",
    "youtube_ugc",
    "live_vqc",
    "live_yt_gaming",
    "finevd",
    "divide_maxwell",
    "biq2021",
    "rated_videos",
)
GENERAL_SETS = ("image_captions", "video_instructions")


def register() -> None:
    """Make `datasets.load_dataset` know the builders by name. Doing it twice does no harm.

    The library has no official way (facts: hugging_face_5.md, section 3), so this adds to its table of packaged
    modules, and leaves out two steps that mean nothing here: a request to the Hub that counts downloads, and a search
    of `data_dir` for files named after splits, which for LSVQ's 38,815 files takes half a minute at each load.
    """
    import datasets.load
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES as packaged

    from dataset_builders.release_builder import code_fingerprint

    packaged.update({name: (f"{__name__}.{name}", code_fingerprint()) for name in RATED_SETS + GENERAL_SETS})
    stock: Any = datasets.load.PackagedDatasetModuleFactory
    if getattr(stock, "knows_releases", False):
        return

    class ReleaseModuleFactory(stock):
        knows_releases = True

        def __init__(self, name: str, **options: Any) -> None:
            if name in RATED_SETS + GENERAL_SETS:
                self.name = name
                self.data_dir, self.data_files = options.get("data_dir"), options.get("data_files")
                self.download_config = options.get("download_config")
            else:
                super().__init__(name, **options)

        def get_module(self) -> datasets.load.DatasetModule:
            if self.name not in RATED_SETS + GENERAL_SETS or self.data_files is not None:
                return super().get_module()
            module, fingerprint = packaged[self.name]
            no_files = datasets.data_files.DataFilesDict()
            return datasets.load.DatasetModule(module, fingerprint, {"data_files": no_files, "dataset_name": self.name})

    datasets.load.PackagedDatasetModuleFactory = ReleaseModuleFactory
