"""From a trained network to one that only predicts: uint8 images in, logits or labels out."""

from fastseg.deploy.model import DeployedModel, deploy

__all__ = ["DeployedModel", "deploy"]
