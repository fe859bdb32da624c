"""What the beta-VAE is trained by."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class BetaVaeObjectiveSettings(BaseModel):
    """Weights of the terms; 0 switches a term off. Reconstruction and rates are sums over pixels and latents, in nats
    where the likelihood is one, and means over faces: other weights are to be read beside a few hundred nats.
    """

    model_config = ConfigDict(extra="forbid")

    reconstruction: Literal["l1", "mse", "laplace"] = Field(
        default="laplace", description="sum over 3 x H x W numbers in [0, 1]; laplace: in nats, its scale is learnt"
    )
    reconstruction_weight: float = Field(default=1.0, gt=0)
    perceptual: float = Field(default=0.0, ge=0, description="weight of the perceptual distance")
    perceptual_backbone: str = Field(default="mobilefacenet", description="the network it is measured by")
    perceptual_weights: str | None = Field(default=None, description="a file of that network's weights")
    beta: float = Field(default=1.0, ge=0, description="weight of the rate of z_id; with tc: of the total correlation")
    capacity: float | None = Field(
        default=None, ge=0, description="nats that z_id is held at in the end; null: beta rules"
    )
    capacity_over: float = Field(default=0.4, ge=0, le=1, description="share of the training in which it gets there")
    gamma: float = Field(default=10.0, gt=0, description="weight of a nat away from the capacity")
    free_bits: float = Field(default=0.0, ge=0, description="nats of each latent of z_id that cost nothing")
    tc: bool = Field(default=False, description="beta weighs the total correlation of the code, the rate weighs 1")
    age_rate: float = Field(
        default=1.0, ge=0, description="weight of the rate of z_age against its prior given the age"
    )
    age: float = Field(default=10.0, ge=0, description="weight of the age head's smooth L1 in decades")
    adversary: float = Field(
        default=30.0, ge=0, description="strength of the reversed gradient of a network that reads age in z_id"
    )
    adversary_over: float = Field(default=0.2, ge=0, le=1, description="share of the training in which it grows from 0")
    hsic: float = Field(default=0.0, ge=0, description="weight of the normalised HSIC of z_id and age")
    guide: float = Field(default=0.0, ge=0, description="weight of the smooth L1 in decades of a judge of renders")
    guide_model: str | list[str] | None = Field(
        default=None, description="the judge: a run or checkpoint of an estimator of ages, or several, one a step"
    )
    jitter: float = Field(
        default=0.0, ge=0, le=1, description="how far it sees renders turned, scaled, shifted and grainy"
    )
    traits: float = Field(
        default=0.0, ge=0, description="weight of gender and race staying as the judges that tell them see them"
    )
    cycle: float = Field(
        default=0.0, ge=0, description="weight of a render's code being the one it was made of, in nats"
    )
    rendered: float = Field(
        default=0.25, gt=0, le=1, description="share of the batch rendered at another age for these"
    )
    choose: Literal[
        "reconstruction/mse",
        "reconstruction/l1",
        "reconstruction/psnr",
        "reconstruction/mse_sampled",
        "rate/id",
        "rate/age",
        "code/active",
        "code/explained",
        "age/mae",
        "probe/ratio",
    ] = Field(default="reconstruction/mse", description="figure on `select` that picks the best epoch")

    @model_validator(mode="after")
    def _complete(self) -> BetaVaeObjectiveSettings:
        for term in ("guide", "traits"):
            if getattr(self, term) and not self.guide_model:
                raise ValueError(f"{term} needs guide_model, a run or checkpoint of an estimator of ages; or {term}=0")
        if self.perceptual and not self.perceptual_weights:
            raise ValueError("perceptual needs perceptual_weights, a file of perceptual_backbone's; or perceptual=0")
        if self.tc and self.beta < 1:
            raise ValueError(
                f"with tc, beta {self.beta} must be 1 or more: the rate holds one total correlation already"
            )
        return self
