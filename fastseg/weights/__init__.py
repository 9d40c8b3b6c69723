"""Models with weights: files that describe themselves, and the table of what is published."""

from fastseg.weights.espnet import read_espnet
from fastseg.weights.files import load_state, read_weights, save_weights
from fastseg.weights.zoo import create_model, list_models, load_model, names_a_file, published_weights

__all__ = [
    "create_model",
    "list_models",
    "load_model",
    "load_state",
    "names_a_file",
    "published_weights",
    "read_espnet",
    "read_weights",
    "save_weights",
]
