"""The grids of ablations that ship: each row differs from its neighbours, and stands beside a row of the paper."""

import itertools
from pathlib import Path

import pytest
import torch
import yaml
from tiny_models import make_decoder, make_tokenizer, make_vision_tower

from lmmvqa.checkpoints.composing import load_temporal_tower
from lmmvqa.checkpoints.default_files import TEMPORAL_TOWER
from lmmvqa.evaluation import ablation
from lmmvqa.evaluation.ablation import read_grid
from lmmvqa.evaluation.published import read_published
from lmmvqa.evaluation.report import _paper_srcc
from lmmvqa.training.arguments import read_arguments
from modeling_lmmvqa import LmmVqaConfig
from modeling_lmmvqa.configuration_lmmvqa import TEMPORAL_GRIDS

GRIDS = {
    "ablations": f"rated_videos={Path(__file__).parent}",
    "ablations_paper": f"lsvq={Path(__file__).parent}",
}


@pytest.fixture(params=GRIDS)
def grid(request):
    return read_grid(Path(ablation.__file__).with_name(f"{request.param}.yaml"), GRIDS[request.param])


def test_rows_of_a_table_mean_different_things(grid):
    for table, rows in itertools.groupby(grid.rows, lambda row: row.table):
        runs = [row.run for row in rows]
        assert len(set(runs)) == len(runs) > 1, table


def test_settings_of_every_row_are_settings(grid):
    for row in grid.rows:
        read_arguments(grid.recipe, {**row.settings, "use_cpu": True, "bf16": False})
        LmmVqaConfig(**row.config)


def test_rows_of_the_paper_s_grid_are_all_rows_of_its_tables():
    grid = read_grid(Path(ablation.__file__).with_name("ablations_paper.yaml"), GRIDS["ablations_paper"])
    published = read_published()
    repeated = {_paper_srcc(row.table, row.name, published) for row in grid.rows}
    assert None not in repeated
    tables = ("VII", "VIII projector", "VIII training data", "VIII temporal tokens")
    assert repeated == {sets["lsvq_test"]["srcc"] for table in tables for sets in published.rows(table).values()}


def test_temporal_tokens_of_the_default_s_grid_are_no_copies():
    """Pooling the small tower's map to more places than it has gives some places twice."""
    tower = load_temporal_tower(str(TEMPORAL_TOWER))
    torch.manual_seed(0)
    side = tower.config.image_size
    with torch.no_grad():
        maps = tower(torch.rand(1, tower.config.num_frames, 3, side, side))
    grid = read_grid(Path(ablation.__file__).with_name("ablations.yaml"), GRIDS["ablations"])
    counts = [row.config.get("num_temporal_tokens", 1) for row in grid.rows if row.table == "slow tokens"]
    for count in counts:
        places = [torch.nn.functional.adaptive_avg_pool3d(part, TEMPORAL_GRIDS[count]).flatten(2) for part in maps]
        tokens = torch.cat(places, dim=1)[0].T
        assert len(torch.unique(tokens, dim=0)) == count


def test_a_base_is_composed_of_the_parts_that_a_row_names(tmp_path):
    tokenizer = make_tokenizer(3)
    tokenizer.save_pretrained(tmp_path / "decoder")
    make_decoder(tokenizer).save_pretrained(tmp_path / "decoder")
    make_vision_tower().save_pretrained(tmp_path / "tower")
    content = {
        "recipe": "lsvq_score",
        "data": GRIDS["ablations_paper"],
        "compose": {"vision_tower": str(tmp_path / "tower"), "decoder": str(tmp_path / "decoder"), "dtype": "float32",
                    "temporal_tower": "none", "video_processor": {"max_chunks": 3}},
        "tables": {"projector": {"MLP": {"config": {"spatial_projector_type": "mlp", "num_spatial_tokens": 4}}}},
    }  # fmt: skip
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(content))
    (row,) = read_grid(tmp_path / "grid.yaml").rows
    folder = ablation._fresh_base(row, tmp_path / "base")
    config = LmmVqaConfig.from_pretrained(folder)
    assert (config.spatial_projector_type, config.num_temporal_tokens) == ("mlp", 0)
    assert '"max_chunks": 3' in (folder / "processor_config.json").read_text()
    content["compose"]["vison_tower"] = "x"
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match="unknown part 'vison_tower' in compose"):
        read_grid(tmp_path / "grid.yaml")
