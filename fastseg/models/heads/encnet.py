"""The head of EncNet: Zhang, Dana, Shi, Zhang, Wang, Tyagi, Agrawal, CVPR 2018, arXiv 1803.08904.

An encoding of the whole map, a residual to a learned dictionary of codewords, tells which classes are likely to be
there and weighs the channels accordingly. Details are those of the authors' PyTorch-Encoding (MIT).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fastseg.layers.conv import ConvBNAct
from fastseg.layers.precision import widened, without_autocast
from fastseg.models.arguments import require_at_least, require_fraction
from fastseg.models.registry import HEADS
from fastseg.types import FeatureInfo, Head


class Encoding(nn.Module):
    """Residuals of a map's pixels to K codewords, each summed with soft assignments (arXiv 1803.08904, section 2.1).

    Pixel x_i belongs to codeword d_k by the softmax over k of s_k |x_i - d_k|^2, where s_k is learned; code k is the
    sum over the pixels of that weight times x_i - d_k. Shapes: (N,C,h,w) -> (N,K,C).

    Distances and sums are matrix products: the largest tensor has N h w max(C, K) numbers and not the N h w K C of all
    residuals, 67 MB and not 2.1 GB in float32 for an image of 1024x2048 at stride 8. They run in float32, or in float64
    where the map has it, whatever autocast says, and so come the codes: sums over all pixels leave float16's range.
    """

    def __init__(self, channels: int, codewords: int) -> None:
        super().__init__()
        bound = (codewords * channels) ** -0.5
        self.codewords = nn.Parameter(torch.empty(codewords, channels).uniform_(-bound, bound))
        self.scale = nn.Parameter(torch.empty(codewords).uniform_(-1, 0))

    def forward(self, x: Tensor) -> Tensor:
        with without_autocast(x):
            wide = widened(x)
            # from the middle of the dictionary: |x|^2 - 2 x d + |d|^2 loses the digits that x and d have in common
            codewords, scale = self.codewords.to(wide.dtype), self.scale.to(wide.dtype)
            middle = codewords.mean(0)
            words = codewords - middle
            pixels = (wide - middle[:, None, None]).flatten(2)
            products = torch.matmul(words, pixels)
            squares = pixels.square().sum(1, keepdim=True) + words.square().sum(1)[:, None]
            assignments = (scale[:, None] * (squares - 2 * products)).softmax(1)
            sums = torch.matmul(assignments, pixels.transpose(1, 2))
            return sums - assignments.sum(2, keepdim=True) * words


class ContextEncoding(nn.Module):
    """Context encoding module (arXiv 1803.08904, figure 2): a map gated by what its encoding says of the scene.

    Shapes: (N,C,h,w), nowhere negative -> the gated map (N,C,h,w) and the encoding (N,C,1,1), the mean of the normed
    codes after a ReLU.
    """

    def __init__(self, channels: int, codewords: int) -> None:
        super().__init__()
        self.conv = ConvBNAct(channels, channels)
        self.encoding = Encoding(channels, codewords)
        self.norm = nn.BatchNorm2d(codewords)
        self.gate = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        codes = self.encoding(self.conv(x))
        with without_autocast(x):
            # as wide as the norm: codes as such may exceed float16, normed ones do not
            codes = codes.to(self.norm.weight.dtype)
            # codes stand where channels do, so that the norm over them is one that training can synchronise
            encoding = torch.relu(self.norm(codes[..., None])).mean(1)[..., None].to(x.dtype)
        # the paper's ReLU after it would change nothing: neither x, which comes from one, nor the gate is negative
        return x + x * torch.sigmoid(self.gate(encoding)), encoding


class EncNetHead(Head):
    """Convolution of `kernel_size`, context encoding, dropout, 1x1 classifier on the coarsest feature map."""

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        channels: int,
        codewords: int,
        kernel_size: int,
        dropout: float,
    ) -> None:
        super().__init__()
        require_at_least(1, num_classes=num_classes, channels=channels, codewords=codewords)
        require_fraction(dropout=dropout)
        if kernel_size not in (1, 3):
            raise ValueError(f"kernel_size is {kernel_size}; allowed: 1 (after a JPU) or 3 (on a backbone's map)")
        self.channels = channels
        self.conv = ConvBNAct(in_channels, channels, kernel_size)
        self.context = ContextEncoding(channels, codewords)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps, finest first; the last one (N,C,h,w) -> logits (N,K,h,w)."""
        return self.with_encoding(features)[0]

    def with_encoding(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """As `forward`, and the scene's encoding (N,channels,1,1), which tells what classes there are."""
        x, encoding = self.context(self.conv(features[-1]))
        return self.classifier(self.dropout(x)), encoding


@HEADS.register
def encnet(
    feature_info: Sequence[FeatureInfo],
    num_classes: int,
    channels: int | None = None,
    codewords: int = 32,
    kernel_size: int = 3,
    dropout: float = 0.1,
) -> Head:
    """EncNet's head on the coarsest map, without lateral connections.

    `channels` defaults to a quarter of that map's. `kernel_size` is that of the first convolution: 3 in EncNet, 1 in
    FastFCN. Raises ValueError for another one and for numbers below 1, or a dropout outside 0 to 1.
    """
    in_channels = feature_info[-1].channels
    return EncNetHead(
        in_channels,
        num_classes,
        channels=max(1, in_channels // 4) if channels is None else channels,
        codewords=codewords,
        kernel_size=kernel_size,
        dropout=dropout,
    )
