"""What a world model is made of: every setting that is needed to build and to run it.

The defaults are the published architecture (arXiv 2603.19312): ``ModelConfig(action_dim=2)`` is
the 18.0 M parameter model of the paper. The same object is written into ``model.json`` of a
checkpoint, so a setting that is not here cannot differ between training and planning.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

#: Mean and standard deviation per colour (R, G, B; 1 is white) that pictures are normalised by.
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)

# Upper bounds keep a damaged or hostile model.json from asking for terabytes.
Width = Annotated[int, Field(ge=1, le=16384)]
Depth = Annotated[int, Field(ge=1, le=128)]
Heads = Annotated[int, Field(ge=1, le=256)]
ImageSize = Annotated[int, Field(ge=8, le=2048)]
#: Patches of a picture: attention grows with their square. 224 px in patches of 14 are 256.
MOST_PATCHES = 16_384
#: Numbers in the first maps of a picture, which a few weights can blow up to gigabytes.
MOST_MAP_NUMBERS = 2**26
Name = Annotated[str, Field(min_length=1, max_length=256)]


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class VitEncoderConfig(_Config):
    """A vision transformer (timm); its [CLS] token is the picture's feature.

    Attributes:
        image_size: Edge of the square picture in pixels; a multiple of ``patch_size``.
        patch_size: Edge of a patch in pixels.
        width: Size of a token.
        depth: Number of layers.
        heads: Attention heads per layer.
        mlp_dim: Hidden size of a layer's MLP.
    """

    kind: Literal["vit"] = "vit"
    image_size: ImageSize = 224
    patch_size: Annotated[int, Field(ge=1, le=256)] = 14
    width: Width = 192
    depth: Depth = 12
    heads: Heads = 3
    mlp_dim: Width = 768

    @model_validator(mode="after")
    def _check(self) -> VitEncoderConfig:
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}"
            )
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        patches = (self.image_size // self.patch_size) ** 2
        if patches > MOST_PATCHES:
            raise ValueError(
                f"image_size {self.image_size} in patches of {self.patch_size} px are {patches} "
                f"patches, {MOST_PATCHES} are allowed; raise patch_size"
            )
        return self


class KeypointEncoderConfig(_Config):
    """A small convolutional network that says where things are; made for training on a CPU.

    Two strided convolutions and one more give ``keypoints`` maps of a quarter of the picture's
    edge; a spatial soft-argmax turns each map into one (x, y); batch normalisation follows.

    Attributes:
        image_size: Edge of the square picture in pixels; a multiple of 4.
        channels: Channels after the first and after the second convolution.
        keypoints: Number of maps; the feature has twice as many numbers.
    """

    kind: Literal["keypoint"] = "keypoint"
    image_size: ImageSize = 64
    channels: tuple[Width, Width] = (16, 32)
    keypoints: Width = 32

    @model_validator(mode="after")
    def _check(self) -> KeypointEncoderConfig:
        if self.image_size % 4:
            raise ValueError(f"image_size {self.image_size} is not a multiple of 4")
        largest = max(
            self.channels[0] * (self.image_size // 2) ** 2,
            max(self.channels[1], self.keypoints) * (self.image_size // 4) ** 2,
        )
        if largest > MOST_MAP_NUMBERS:
            raise ValueError(
                f"channels and keypoints make {largest} numbers of a picture of "
                f"{self.image_size} px, {MOST_MAP_NUMBERS} are allowed"
            )
        return self


EncoderConfig = Annotated[VitEncoderConfig | KeypointEncoderConfig, Field(discriminator="kind")]


class ProjectorConfig(_Config):
    """Linear, normalisation, GELU, Linear.

    Attributes:
        hidden: Size between the two linear maps.
        norm: ``batch`` (BatchNorm1d, the paper), ``layer`` or ``none``.
    """

    hidden: Width = 2048
    norm: Literal["batch", "layer", "none"] = "batch"


class ActionEncoderConfig(_Config):
    """1x1 convolution, then Linear-SiLU-Linear to the predictor's width.

    Attributes:
        smoothed: Output channels of the convolution.
        hidden: Size between the two linear maps.
    """

    smoothed: Width = 10
    hidden: Width = 768


class PredictorConfig(_Config):
    """A causal transformer whose layers are conditioned on the action by AdaLN-zero.

    The published predictor.

    Attributes:
        width: Size of a token.
        depth: Number of layers.
        heads: Attention heads per layer.
        head_dim: Size of a head; ``heads * head_dim`` need not be ``width``.
        mlp_dim: Hidden size of a layer's MLP.
        dropout: Probability, while training.
        residual: Predict the change of the embedding instead of the next embedding.
        projector: MLP behind the transformer, of the same shape as the encoder's; none if null.
    """

    kind: Literal["transformer"] = "transformer"
    width: Width = 192
    depth: Depth = 6
    heads: Heads = 16
    head_dim: Width = 64
    mlp_dim: Width = 2048
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    residual: bool = False
    projector: ProjectorConfig | None = ProjectorConfig()


class MlpPredictorConfig(_Config):
    """Residual layers on the history laid side by side: more accurate per minute on a CPU.

    Attributes:
        width: Size of the hidden state.
        depth: Number of residual layers.
        residual: Predict the change of the embedding instead of the next embedding.
        projector: MLP behind it, of the same shape as the encoder's; none if null.
    """

    kind: Literal["mlp"] = "mlp"
    width: Width = 256
    depth: Depth = 4
    residual: bool = True
    projector: ProjectorConfig | None = None


def _named_kind(value: Any) -> Any:
    """Checkpoints from before there was a choice do not name it."""
    return {"kind": "transformer", **value} if isinstance(value, dict) else value


AnyPredictorConfig = Annotated[
    Annotated[PredictorConfig | MlpPredictorConfig, Field(discriminator="kind")],
    BeforeValidator(_named_kind),
]


class InputsConfig(_Config):
    """What of a robot the model is given, by the names of its contract.

    By default the pictures of one camera and nothing else, as published.

    Attributes:
        cameras: Which, in this order; none: the contract's first.
        fusion: How several cameras come together. ``embeddings``: an encoder for each, their
            features side by side; ``images``: the pictures as channels of one picture, for one
            encoder.
        state: Names of state fields that are part of the latent state as they are, standardised
            ("+prop" of DINO-WM, arXiv 2411.04983). In a preset also true, all fields that the
            contract calls proprioceptive, or false, none.
    """

    cameras: Annotated[tuple[Name, ...], Field(max_length=16)] = ()
    fusion: Literal["embeddings", "images"] = "embeddings"
    state: bool | Annotated[tuple[Name, ...], Field(max_length=1024)] = False

    @model_validator(mode="after")
    def _check(self) -> InputsConfig:
        for what, names in (("cameras", self.cameras), ("state", self.state_names)):
            if len(set(names)) < len(names):
                raise ValueError(f"{what} must differ, got {', '.join(names)}")
        return self

    @property
    def number_of_cameras(self) -> int:
        """C."""
        return max(1, len(self.cameras))

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of the P state fields; none while it is open which (``state: true``)."""
        return self.state if isinstance(self.state, tuple) else ()


class ModelConfig(_Config):
    """A whole world model.

    Attributes:
        inputs: Which cameras and state fields it is given.
        encoder: Picture to feature.
        embedding_dim: E, the size of the embedding of what the cameras see; with state fields
            behind it, it is a latent state.
        projector: Feature to embedding.
        action_encoder: Block of actions to the predictor's condition.
        predictor: Latent states and actions to the next latent states.
        history: Most latent states that a prediction looks back on.
        frame_skip: F, control steps in one block: from one frame to the next.
        action_dim: A, numbers in one command.
    """

    inputs: InputsConfig = InputsConfig()
    encoder: EncoderConfig = VitEncoderConfig()
    embedding_dim: Width = 192
    projector: ProjectorConfig = ProjectorConfig()
    action_encoder: ActionEncoderConfig = ActionEncoderConfig()
    predictor: AnyPredictorConfig = PredictorConfig()
    history: Annotated[int, Field(ge=1, le=64)] = 3
    frame_skip: Annotated[int, Field(ge=1, le=1000)] = 5
    action_dim: Annotated[int, Field(ge=1, le=1024)]

    @property
    def state_dim(self) -> int:
        """P, the number of state fields in a latent state."""
        return len(self.inputs.state_names)

    @property
    def latent_dim(self) -> int:
        """D = E + P, the size of a latent state."""
        return self.embedding_dim + self.state_dim

    @property
    def picture_channels(self) -> int:
        """3 C, the channels of what the cameras see."""
        return 3 * self.inputs.number_of_cameras

    @property
    def block_dim(self) -> int:
        """F * A, the numbers in one block of actions."""
        return self.frame_skip * self.action_dim

    @property
    def image_size(self) -> int:
        """Edge of the square picture in pixels."""
        return self.encoder.image_size


class ProposalConfig(_Config):
    """A goal-conditioned network that proposes the next block of actions.

    Attributes:
        width: Size of its hidden layers.
        depth: Residual blocks.
        longest: Most blocks to go that it tells apart; more count as this many.
    """

    width: Width = 512
    depth: Depth = 3
    longest: Annotated[int, Field(ge=1, le=1000)] = 20


class LossConfig(_Config):
    """The two terms of the training loss; defaults are the released configuration.

    Attributes:
        weight: lambda, the weight of SIGReg beside the prediction error.
        directions: Random directions per step.
        knots: Points of the characteristic function on [0, ``upper``].
        upper: Last knot.
        window: Width of the Gaussian window exp(-t^2 / (2 window^2)).
        rollout_steps: 1 is the paper: every next embedding from true ones. With K > 1 the steps
            2..K of an autoregressive rollout are averaged in (see `lewm_core.model.loss`).
        stop_gradient: Keep the prediction's target fixed. Not the method: a switch for comparing.
    """

    weight: Annotated[float, Field(ge=0.0, le=1e6)] = 0.09
    directions: Annotated[int, Field(ge=1, le=1_000_000)] = 1024
    knots: Annotated[int, Field(ge=2, le=10_000)] = 17
    upper: Annotated[float, Field(gt=0.0, le=1e3)] = 3.0
    window: Annotated[float, Field(gt=0.0, le=1e3)] = 1.0
    rollout_steps: Annotated[int, Field(ge=1, le=64)] = 1
    stop_gradient: bool = False
