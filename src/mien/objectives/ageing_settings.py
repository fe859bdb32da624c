"""What the AgeTransformer is trained by."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, model_validator


class AgeTransformerObjectiveSettings(BaseModel):
    """Weights of the terms, each a mean over faces; a term of weight 0 is not computed."""

    model_config = ConfigDict(extra="forbid")

    renders: int = Field(default=2, ge=1, description="ages that each face is shown at in a step, beside its own")
    adversarial: float = Field(default=1.0, ge=0, description="weight of being taken for real; 0: no discriminator")
    width: int = Field(default=16, ge=8, multiple_of=8, description="of the discriminator: channels at half the side")
    r1: float = Field(default=1.0, ge=0, description="gamma of the gradient penalty; pixels are in [0, 1]")
    r1_every: int = Field(
        default=16, ge=1, description="steps between two penalties, each as heavy as all it stands for"
    )
    mismatch: float = Field(
        default=0.5, ge=0, description="weight of real faces at wrong ages being told from right ones"
    )
    age_class: float = Field(default=0.1, ge=0, description="weight of the discriminator's naming the nearest anchor")
    augment: float = Field(
        default=0.6, ge=0, lt=1, description="mean sign of verdicts on real faces that augmentation holds; 0: none"
    )
    augment_faces: int = Field(default=200_000, ge=1, description="faces that take the augmentation from 0 to 1")
    own: float = Field(default=10.0, ge=0, description="weight of the L1 of a face at its own age")
    cycle: float = Field(default=5.0, ge=0, description="weight of the L1 of a render taken back to its own age")
    cycle_part: float = Field(default=0.5, gt=0, le=1, description="share of the batch that is taken back")
    identity: float = Field(default=0.0, ge=0, description="weight of 1 - cosine of the identity guide's features")
    identity_backbone: str = Field(default="mobilenetv2_100", description="the identity guide; not mobilefacenet")
    identity_weights: str | None = Field(default=None, description="a file of its weights")
    identity_size: int | None = Field(default=None, ge=32, description="pixels it looks at; null: its own")
    identity_model: str | None = Field(default=None, description="an estimator's run or checkpoint as identity guide")
    guide_model: str | list[str] | None = Field(
        default=None, description="the age guide: a run or checkpoint of an estimator, or several, one a step"
    )
    guided_at: int | None = Field(
        default=None, ge=32, description="pixels at which guides see faces, the change laid over them; null: as made"
    )
    age: float = Field(default=0.0, ge=0, description="weight of the smooth L1 in decades of the guide's age")
    jitter: float = Field(
        default=1.0, ge=0, le=1, description="how far the age guide sees renders turned, scaled, shifted and grainy"
    )
    grey: float = Field(
        default=0.0, ge=0, le=1, description="share of faces that the age guide sees without colour: tints do not pay"
    )
    ordering: float = Field(
        default=0.0, ge=0, description="weight of neighbouring ages' judged ages rising, in decades"
    )
    traits: float = Field(
        default=0.0, ge=0, description="weight of gender and race staying as the age guides that tell them see them"
    )
    perceptual: float = Field(default=0.0, ge=0, description="weight of the perceptual distance to the input")
    perceptual_backbone: str = Field(default="mobilenetv2_100", description="the network it is measured by")
    perceptual_weights: str | None = Field(default=None, description="a file of that network's weights")
    mask: float = Field(default=0.1, ge=0, description="weight of the mean of the masks")
    smooth: float = Field(default=0.01, ge=0, description="weight of the masks' total variation, a mean over pixels")
    source: float = Field(default=0.2, ge=0, description="weight of the network's own guess of the face's age")
    direction: float = Field(
        default=0.0, ge=0, description="weight of changing as the sentences of the two ages differ"
    )
    withhold: float = Field(default=0.5, ge=0, le=1, description="share of faces whose age the network is not told")
    text_withhold: float = Field(default=0.5, ge=0, le=1, description="share of faces whose caption it is not told")
    years: tuple[NonNegativeFloat, NonNegativeFloat] = Field(
        default=(20.0, 120.0), description="curriculum: how far from its own a face is aged, at first and in the end"
    )
    spread: tuple[NonNegativeFloat, NonNegativeFloat] = Field(
        default=(3.0, 8.0), description="curriculum: the most uncertain labels, in years, at first and in the end"
    )
    over: float = Field(default=0.4, ge=0, le=1, description="share of the training in which the curriculum is done")
    stop_on_collapse: bool = Field(default=False, description="stop after `patience` epochs of collapse")
    patience: int = Field(default=3, ge=1, description="epochs")
    judged: int = Field(default=128, ge=4, description="faces of `select` that are rendered after each epoch")
    choose: Literal[
        "score",
        "own/l1",
        "age/mae",
        "age/slope",
        "ordering/pairs",
        "ordering/faces",
        "identity/cosine",
        "spread/share",
        "source/mae",
    ] = Field(default="score", description="figure on `select` that picks the best epoch")

    @model_validator(mode="after")
    def _complete(self) -> AgeTransformerObjectiveSettings:
        for term in ("age", "ordering", "traits"):
            if getattr(self, term) and not self.guide_model:
                raise ValueError(f"{term} needs guide_model, a run or checkpoint of an estimator of ages; or {term}=0")
        if self.ordering and self.renders < 2:
            raise ValueError("ordering needs renders of 2 or more")
        if self.identity and not (self.identity_weights or self.identity_model):
            raise ValueError("identity needs identity_weights or identity_model; or identity=0")
        for figures, needed, given in (
            (("age/mae", "age/slope", "ordering/pairs", "ordering/faces"), "guide_model", self.guide_model),
            (("identity/cosine",), "identity_weights or identity_model", self.identity_weights or self.identity_model),
        ):
            if self.choose in figures and not given:
                raise ValueError(f"choose={self.choose} needs {needed}; without, take score or own/l1")
        if self.perceptual and not self.perceptual_weights:
            raise ValueError("perceptual needs perceptual_weights, a file of perceptual_backbone's; or perceptual=0")
        return self
