"""Processor: videos and questions in, the tensors that the model takes out."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

from transformers import BatchFeature
from transformers.processing_utils import ProcessingKwargs, ProcessorMixin

from .quality_prompts import LEVELS, SCORE, conversation, level_question, question_of
from .questions import AskedQuestion, Question, QuestionError, find_question, level_bounds, level_names
from .video_processing_lmmvqa import LmmVqaVideosKwargs, as_video_list

# Chat templates of language models expect plain text; this turns the blocks of a message into text, with the
# placeholder where the video (or an image, a video of one frame) is, and leaves everything else to the template that
# follows it. Templates without a system role get its text in front of the first message.
_FLATTEN_BLOCKS = """\
{%- set flat = namespace(messages=[], system='') -%}
{%- for message in messages -%}
  {%- set text = namespace(content='') -%}
  {%- if message['content'] is string -%}
    {%- set text.content = message['content'] -%}
  {%- else -%}
    {%- for block in message['content'] -%}
      {%- set seen = block['type'] in ['video', 'image'] -%}
      {%- set text.content = text.content + ('VIDEO_TOKEN\\n' if seen else block['text']) -%}
    {%- endfor -%}
  {%- endif -%}
  {%- if FOLD_SYSTEM and message['role'] == 'system' -%}
    {%- set flat.system = text.content + '\\n\\n' -%}
  {%- else -%}
    {%- set flat.messages = flat.messages + [{'role': message['role'], 'content': flat.system + text.content}] -%}
    {%- set flat.system = '' -%}
  {%- endif -%}
{%- endfor -%}
{%- set messages = flat.messages -%}
"""


def video_chat_template(language_model_template: str, video_token: str, *, has_system: bool = True) -> str:
    """The chat template of a language model, made to understand messages that hold a video.

    Args:
        has_system: whether the template takes a system prompt; without it the prompt stands before the first message.
    """
    flatten = _FLATTEN_BLOCKS.replace("FOLD_SYSTEM", "false" if has_system else "true")
    return flatten.replace("VIDEO_TOKEN", video_token) + language_model_template


class LmmVqaProcessorKwargs(ProcessingKwargs, total=False):
    videos_kwargs: LmmVqaVideosKwargs  # type: ignore[misc]
    # A rendered chat begins as its template says; the tokenizer must not add a second beginning. `generate` goes on at
    # the right end of every row.
    _defaults = {  # type: ignore[misc] # noqa: RUF012
        "text_kwargs": {"add_special_tokens": False, "padding_side": "left"},
    }


class LmmVqaProcessor(ProcessorMixin):
    """Video processor and tokenizer in one, with the prompts and the answer format.

    `processor(videos=[...])` prepares what `model.assess` takes; `processor(text=..., videos=...)` and
    `processor.apply_chat_template(messages, tokenize=True, return_dict=True)` prepare what `forward` and `generate`
    take.

    Args:
        video_processor: a `LmmVqaVideoProcessor`.
        tokenizer: the tokenizer of the language model; it must know `video_token`.
        video_token: the placeholder; one in the text becomes as many as the video has visual tokens.
        tokens_per_chunk: visual tokens of one second of video (of the whole video where `frame_fusion` is not
        "concat"). frame_fusion: as in the model's config.
        questions: what the checkpoint was taught to answer, the score among them; as `question_of` takes them. By
            default score and level.
        levels: the level words, worst first, as in the model's config, of a checkpoint that states no questions.

    Raises:
        QuestionError: two questions have one name, the score is missing, or a field has a value that can't be.
    """

    valid_processor_kwargs = LmmVqaProcessorKwargs  # type: ignore[assignment]

    def __init__(
        self,
        video_processor: Any,
        tokenizer: Any,
        video_token: str = "<video>",
        tokens_per_chunk: int = 512,
        frame_fusion: Literal["concat", "mean", "joint"] = "concat",
        questions: Sequence[Question | Mapping[str, Any] | str] | None = None,
        levels: Sequence[str] = LEVELS,
        chat_template: str | None = None,
    ):
        self.video_token = video_token
        self.video_token_id = tokenizer.convert_tokens_to_ids(video_token)
        if self.video_token_id is None or self.video_token_id == tokenizer.unk_token_id:
            raise ValueError(
                f"The tokenizer does not know the placeholder {video_token!r}: add it as a special token, as `lmmvqa "
                "compose` does."
            )
        self.tokens_per_chunk = tokens_per_chunk
        self.frame_fusion = frame_fusion
        self.questions = tuple(map(question_of, questions or (SCORE, level_question(levels))))
        names = [question.name for question in self.questions]
        if len(set(names)) < len(names) or SCORE.name not in names:
            raise QuestionError(
                f"A processor can't hold the questions {', '.join(names)}: each has a name of its own, and score, by "
                "which videos are ordered, compared and followed over time, is among them."
            )
        # Not every tokenizer keeps this when it is saved.
        tokenizer.padding_side = "left"
        super().__init__(video_processor, tokenizer, chat_template=chat_template)

    def __call__(
        self,
        images: Any = None,
        text: Any = None,
        videos: Any = None,
        audio: Any = None,
        questions: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """
        Args:
            text: one rendered chat (`apply_chat_template`) or a list, with one placeholder a video; no special tokens
                are added. Without it, the inputs of `assess` are prepared.
            videos: one video or a list; see `LmmVqaVideoProcessor.preprocess` for what a video may be.
            questions: names of those to ask; without it all that the checkpoint was taught.
            kwargs: settings of the tokenizer and the video processor; `return_tensors="pt"` as usual.

        Returns:
            `input_ids` and `attention_mask` (videos, length), the tensors of the video processor, and without `text`
            the `questions` of `assess`.

        Raises:
            VideoError: a video can't be read.
            QuestionError: the checkpoint was never taught a question.
            ValueError: placeholders and videos don't match in number.
        """
        if text is not None or videos is None:
            return super().__call__(images=images, text=text, videos=videos, audio=audio, **kwargs)
        videos = as_video_list(videos)
        kwargs.setdefault("return_tensors", "pt")
        prefix, _ = self.split_prompt(conversation(SCORE.fixed))
        # All videos of a batch share the questions that follow, so padding goes in front.
        batch = super().__call__(text=[prefix] * len(videos), videos=videos, padding=True, **kwargs)
        batch["questions"] = self.ask(questions)
        return batch

    @property
    def levels(self) -> list[str]:
        """The level words, worst first; none where the checkpoint was not taught the level."""
        return level_names(self.questions)

    @property
    def level_bounds(self) -> list[float]:
        """The scores above which each level but the worst begins."""
        return level_bounds(self.questions)

    def question(self, name: str) -> Question:
        """The question of this name.

        Raises:
            QuestionError: the checkpoint was never taught it.
        """
        return find_question(self.questions, name)

    def ask(self, names: Sequence[str] | None = None) -> list[AskedQuestion]:
        """The questions of these names in tokens, as `assess` takes them; without names all of the checkpoint.

        Raises:
            QuestionError: the checkpoint was never taught one of them.
        """
        return [
            self._in_tokens(question) for question in (self.questions if names is None else map(self.question, names))
        ]

    def _in_tokens(self, question: Question) -> AskedQuestion:
        if question not in self._asked:
            self._asked[question] = AskedQuestion(
                name=question.name,
                kind=question.kind,
                answers=tuple(question.answers),
                token_ids=tuple(self.question_ids(question.fixed)),
                answer_ids=tuple(tuple(self.answer_ids(answer)) for answer in question.answers),
                bounds=tuple(question.bounds),
            )
        return self._asked[question]

    @cached_property
    def _asked(self) -> dict[Question, AskedQuestion]:
        return {}

    def assessment_prefix_ids(self, num_chunks: int) -> list[int]:
        """Token ids that `assess` takes as `input_ids`, for a video with `num_chunks` chunks."""
        return self.prefix_ids(conversation(SCORE.fixed), num_chunks)

    def split_prompt(self, messages: list[dict[str, Any]]) -> tuple[str, str]:
        """The rendered chat, ready for the answer, cut behind the placeholder: what comes up to the video, and the
        question.

        The cut is at a special token, so both parts give the same tokens apart as together.

        Raises:
            ValueError: the chat does not hold exactly one video.
        """
        rendered = self.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        parts = rendered.split(self.video_token)
        if len(parts) != 2:
            raise ValueError(f"A chat must hold exactly one video, but this one has {len(parts) - 1}.")
        return parts[0] + self.video_token, parts[1]

    def prefix_ids(self, messages: list[dict[str, Any]], num_chunks: int) -> list[int]:
        """Token ids up to the last visual token of a video with `num_chunks` chunks."""
        prefix = self.split_prompt(messages)[0].replace(self.video_token, self.video_placeholders(num_chunks))
        return self.text_ids(prefix)

    def question_ids(self, question: str | list[dict[str, Any]]) -> list[int]:
        """Token ids between the video and the answer, for a question or for chat messages."""
        messages = conversation(question) if isinstance(question, str) else question
        return self.text_ids(self.split_prompt(messages)[1])

    def answer_ids(self, answer: str) -> list[int]:
        """Token ids of an answer and of the end of the assistant's turn."""
        return [*self.text_ids(answer), self.tokenizer.convert_tokens_to_ids(self.end_of_turn)]

    @cached_property
    def end_of_turn(self) -> str:
        """The token that ends an answer in the chat template; some decoders end a turn unlike a text."""
        answer = "57"
        chat = self.apply_chat_template(conversation("", answer=answer), tokenize=False)
        special = {token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special}
        after = self.tokenizer.tokenize(chat.rpartition(answer)[2])
        return next((token for token in after if token in special), self.tokenizer.eos_token)

    def text_ids(self, text: str) -> list[int]:
        """Token ids of a part of a rendered chat, as it stands: the one way from text to ids."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def video_placeholders(self, num_chunks: int) -> str:
        """What one placeholder becomes: the visual tokens of each second, a line for each."""
        second = self.video_token * self.tokens_per_chunk
        return "\n".join([second] * num_chunks) if self.frame_fusion == "concat" else second

    def replace_video_token(self, video_inputs: dict[str, Any], video_idx: int, **kwargs: Any) -> str:
        return self.video_placeholders(int(video_inputs["chunk_counts"][video_idx]))

    def validate_inputs(
        self, images: Any = None, text: Any = None, videos: Any = None, audio: Any = None, **kwargs: Any
    ) -> None:
        # The library checks videos as arrays and paths; ours may also be bytes, files and mappings.
        super().validate_inputs(
            images=images, text=None if videos is not None else text, videos=videos, audio=audio, **kwargs
        )
        if videos is not None:
            placeholders, count = sum(sample.count(self.video_token) for sample in text), len(as_video_list(videos))
            if placeholders != count:
                raise ValueError(
                    f"The text has {placeholders} placeholders {self.video_token!r} for {count} videos: write one for "
                    "each video."
                )

    def _process_videos(self, videos: Any, **kwargs: Any) -> tuple[BatchFeature, list[str]]:
        processed = self.video_processor(videos, **kwargs)
        count = len(processed["chunk_counts"])
        return processed, [self.replace_video_token(processed, index) for index in range(count)]

    def to_dict(self) -> dict[str, Any]:
        return super().to_dict() | {"questions": [question.as_data() for question in self.questions]}


# Whoever saves a processor puts its code beside it.
LmmVqaProcessor.register_for_auto_class("AutoProcessor")

__all__ = ["LmmVqaProcessor"]
