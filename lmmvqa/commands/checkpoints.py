"""The commands `lmmvqa info`, `compose`, `merge`, `calibrate` and `export`: what makes and describes checkpoints. Thin
over `lmmvqa.checkpoints`, `lmmvqa.release.calibration` and `lmmvqa.onnx_export`; heavy imports happen inside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from lmmvqa.commands.checks import check_model
from lmmvqa.commands.options import Question, QuestionScale, Scale, parse_scales, parse_settings
from lmmvqa.console import clear_errors, messages
from processing.errors import InputError

if TYPE_CHECKING:
    from modeling_lmmvqa import LmmVqaConfig

app = typer.Typer()


@app.command()
def info(
    model: Annotated[
        str | None, typer.Argument(help="Checkpoint: folder or Hub id. Default: the paper's configuration.")
    ] = None,
) -> None:
    """Parameters of each part, visual tokens and memory of a model, counted without loading its weights."""
    with clear_errors():
        from transformers import AutoConfig

        import lmmvqa.registration  # noqa: F401
        from lmmvqa.checkpoints.composing import describe
        from modeling_lmmvqa import LmmVqaConfig

        try:
            config = LmmVqaConfig() if model is None else AutoConfig.from_pretrained(model)
        except ValueError as error:
            raise InputError(f"{model} is not an LMM-VQA checkpoint: name another one.") from error
        if not isinstance(config, LmmVqaConfig):
            raise InputError(f"{model} is a {config.model_type!r} model and not an LMM-VQA checkpoint.")
        description = describe(config)
        table = Table("part", "parameters", title=model or "The paper's configuration")
        for name, count in description.parameters.items():
            table.add_row(name, f"{count:,}")
        table.add_row("all", f"{sum(description.parameters.values()):,}")
        table.add_row("trained (projectors)", f"{description.trained_parameters:,}")
        Console().print(table)
        span = "video" if config.frame_fusion != "concat" else "second of video"
        typer.echo(f"visual tokens for each {span}: {description.tokens_per_second}")
        typer.echo(f"weights in bfloat16: {description.weight_bytes / 2**30:.2f} GiB")
        typer.echo(f"key-value cache for each {span}, bfloat16: {description.cache_bytes_per_second / 2**20:.1f} MiB")


@app.command()
def compose(
    output: Annotated[Path, typer.Argument(help="Folder for the checkpoint.")],
    vision_tower: Annotated[
        str | None, typer.Option(help="Hub id or folder of a vision model. Default: CLIP ViT-L/14.")
    ] = None,
    decoder: Annotated[
        str | None,
        typer.Option(
            help="Hub id, folder or .gguf file of an instruction-tuned language model. Default: Llama-3-8B-Instruct."
        ),
    ] = None,
    temporal_tower: Annotated[
        str | None,
        typer.Option(
            help="Folder of ours, a public SlowFast checkpoint or its https:// address; none for a model without "
            "temporal tokens, the paper's ablation. Default: SlowFast R50 8x8, as pytorchvideo publishes it."
        ),
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="A field of LmmVqaConfig, such as spatial_projector_type=mlp.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="Precision of the parts, such as float32 or bfloat16.")] = "bfloat16",
) -> None:
    """Assemble a checkpoint from pretrained parts, by default the paper's. Its projectors are fresh: train it before
    you believe its scores."""
    with clear_errors():
        import lmmvqa.registration  # noqa: F401
        from lmmvqa.checkpoints import composing

        config = parse_settings(setting)
        # The smallest part first: where it can't be had, nothing large was fetched in vain.
        motion = None
        if temporal_tower != "none":
            motion = composing.load_temporal_tower(temporal_tower or composing.SLOWFAST_R50)
        language_model, tokenizer = composing.load_decoder(decoder or composing.LLAMA_3, dtype=dtype)
        network, processor = composing.compose(
            vision_tower=composing.load_vision_tower(vision_tower or composing.CLIP_VIT_L, dtype=dtype),
            temporal_tower=motion,
            decoder=language_model,
            tokenizer=tokenizer,
            config=config,
        )
        network.save_pretrained(output)
        processor.save_pretrained(output)
        Console().print(composition_table(network.config, str(output)))
        typer.echo(f"Next: lmmvqa train lsvq_score model={output} data=lsvq=LSVQ")


def composition_table(config: LmmVqaConfig, title: str) -> Table:
    """What a model is made of: its parts, how large they are, and what each gives to the decoder."""
    from lmmvqa.checkpoints.composing import describe

    sizes = describe(config).parameters
    span = "a video" if config.frame_fusion != "concat" else "a second"
    decoder = sizes["language_model"] + sizes.get("lm_head", 0)
    rows = [("spatial tower", config.vision_config.model_type, sizes["vision_tower"], config.num_spatial_tokens)]
    if config.num_temporal_tokens:
        motion = f"SlowFast R{config.temporal_config.depth}"
        rows.append(("temporal tower", motion, sizes["temporal_tower"], config.num_temporal_tokens))
    else:
        rows.append(("temporal tower", "none (the paper's ablation)", 0, 0))
    untrained = sum(size for name, size in sizes.items() if name.endswith("projector"))
    table = Table("part", "what", "parameters", f"tokens {span}", title=title)
    for part, what, size, tokens in rows:
        table.add_row(part, what, f"{size:,}", str(tokens))
    table.add_row("decoder", config.text_config.model_type, f"{decoder:,}", "")
    table.add_row("projectors", "[bold]untrained[/]", f"{untrained:,}", str(config.tokens_per_chunk))
    return table


@app.command()
def merge(
    adapter: Annotated[Path, typer.Argument(help="Output of `lmmvqa train`.")],
    output: Annotated[Path, typer.Argument(help="New or empty folder for the full checkpoint.")],
) -> None:
    """Make a full checkpoint of what was trained and its base."""
    with clear_errors():
        from lmmvqa.checkpoints.merging import merge as merge_checkpoint

        merge_checkpoint(adapter, output)
        messages.print(f"Full checkpoint in {output}.")


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="Checkpoint: folder or Hub id; `default` is the one that comes along.")],
    output: Annotated[Path, typer.Argument(help="New or empty folder.")],
    to: Annotated[Literal["onnx"], typer.Option(help="The form.")] = "onnx",
    int8: Annotated[
        bool,
        typer.Option(
            "--int8", help="Weights of 8 bits: smaller and faster, and scores that differ a little (docs/light.md)."
        ),
    ] = False,
    weights: Annotated[
        bool, typer.Option("--weights/--without-weights", help="Graphs alone, for weights of the same architecture.")
    ] = True,
) -> None:
    """Write a small checkpoint as graphs that score without torch: `lmmvqa score clip.mp4 --model OUTPUT`."""
    source = check_model(None if model == "default" else model)
    if int8 and not weights:
        raise typer.BadParameter("--int8 is made of weights: leave --without-weights out.")
    with clear_errors():
        from lmmvqa.onnx_export.exporting import export as export_checkpoint

        export_checkpoint(source, output, int8=int8, with_weights=weights)
        size = sum(file.stat().st_size for file in output.iterdir() if file.is_file())
        messages.print(f"Graphs in {output}, {size / 1e6:,.0f} MB.", soft_wrap=True)


@app.command()
def calibrate(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a full checkpoint; its config.json is changed.")],
    data: Annotated[
        str, typer.Option(help="NAME=FOLDER, as for `lmmvqa evaluate`: rated videos that the model did not learn from.")
    ],
    split: Annotated[str, typer.Option(help="Which of them.")] = "validation",
    leave_out: Annotated[
        list[str] | None,
        typer.Option(
            help="A family of the label file's column `family` whose ratings can't be told from the video alone."
        ),
    ] = None,
    scale: Scale = None,
    question: Question = None,
    question_scale: QuestionScale = None,
    feature_cache: Annotated[Path | None, typer.Option(help="Features of a run on the same videos.")] = None,
) -> None:
    """Undo the shrinkage of a checkpoint's scores, and make its 90 % interval hold and its levels as sure as they are
    right. Prints what is put into its config."""
    with clear_errors():
        from dataset_builders.set_specs import SetSpec
        from lmmvqa.evaluation.rated_sets import read_set
        from lmmvqa.release.calibration import calibrate_checkpoint

        further: list[Any] = []
        if question:
            from lmmvqa.checkpoints.loading import taught_questions

            further = taught_questions(str(checkpoint), question)
        options = {"scale": scale, "scales": parse_scales(question_scale), "questions": further}
        rows = [row for row in read_set(SetSpec.parse(data), **options) if row.split == split]
        families = {row.parts.get("family") for row in rows} - {None}
        if rows and (unknown := set(leave_out or ()) - families):
            has = f"the families {', '.join(sorted(families))}" if families else "no column family"
            raise InputError(f"--leave-out {', '.join(sorted(unknown))}: the split {split} of {data} has {has}.")
        rows = [row for row in rows if row.parts.get("family") not in (leave_out or ())]
        if not rows:
            raise InputError(
                f"{data} has no videos of the split {split} that are not left out: name another with --split."
            )
        fitted = calibrate_checkpoint(
            checkpoint,
            [row.score for row in rows],
            [row.level for row in rows],
            [row.source for row in rows],
            feature_cache,
            [row.labels for row in rows],
        )
        typer.echo(json.dumps(fitted))
