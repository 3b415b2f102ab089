"""Score and level of one video by the read-out, against one bare prefill of the same tokens.

`python benchmarks/read_out.py [--model M] [--video FILE]` prints ratios of times measured in turn in one run, the best
of the repeats: `assess` on features that are at hand, without and with the template's text cached, the same with a
third question (`flaw`; the time does not depend on what was taught), and one plain pass of the language model over
prefix, two questions and trie nodes.
"""

import argparse
import copy
import time
from pathlib import Path
from typing import Any

import torch

from lmmvqa.checkpoints.loading import load_checkpoint
from modeling_lmmvqa.answer_tries import AnswerTrie, lay_out_branches
from modeling_lmmvqa.feature_batches import assessment_inputs
from modeling_lmmvqa.tower_features import tower_features
from processing.quality_prompts import FLAW, TASKS

CLIP = Path(__file__).parent.parent / "tests" / "data" / "flower.mp4"


@torch.no_grad()
def measure_read_out(model: Any, processor: Any, video: str, repeats: int) -> tuple[int, dict[str, float]]:
    """The number of tokens, and the best time of each way in seconds."""
    features = tower_features(model.base_model, processor.video_processor(video, return_tensors="pt"))
    three = copy.copy(processor)
    three.questions = (*map(processor.question, TASKS), FLAW)
    inputs = assessment_inputs(three, [features], TASKS)
    further = assessment_inputs(three, [features])
    branches = lay_out_branches(
        [question.token_ids for question in inputs["questions"]],
        [AnswerTrie(question.answer_ids) for question in inputs["questions"]],
    )
    template = model.cache_template(inputs["input_ids"][0])
    tokens = torch.cat([inputs["input_ids"], torch.from_numpy(branches.token_ids)[None]], dim=1)
    embeddings = model.get_input_embeddings()(tokens)

    def prefill() -> None:
        hidden = model.model.language_model(inputs_embeds=embeddings, use_cache=True).last_hidden_state
        model.lm_head(hidden[:, -1:])

    works = {
        "prefill": prefill,
        "assess": lambda: model.assess(**inputs),
        "assess, template cached": lambda: model.assess(**inputs, template_cache=template),
        "three questions, template cached": lambda: model.assess(**further, template_cache=template),
    }
    times: dict[str, list[float]] = {name: [] for name in works}
    for repeat in range(repeats + 2):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            # The first rounds warm up.
            if repeat >= 2:
                times[name].append(time.perf_counter() - start)
    return tokens.shape[1], {name: min(seconds) for name, seconds in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="checkpoint; the default one without it")
    parser.add_argument("--video", default=str(CLIP))
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    tokens, best = measure_read_out(*load_checkpoint(arguments.model), arguments.video, arguments.repeats)
    print(f"tokens of prefix, questions and trie nodes: {tokens}")
    for name, seconds in best.items():
        print(f"{name}: {seconds * 1000:.1f} ms, ratio {seconds / best['prefill']:.2f}")
    ratio = best["three questions, template cached"] / best["assess, template cached"]
    print(f"three questions against two: {ratio:.2f}")


if __name__ == "__main__":
    main()
