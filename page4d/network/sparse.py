"""Sparse Global-SA over all tokens of a clip: landmark, dilated or memory."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from page4d.config import GlobalStrategy, ModelConfig
from page4d.layout import Layout
from page4d.network import rope as ropes
from page4d.network.attention import biased_attention, segment_attention
from page4d.network.block import Block, island
from page4d.network.mask import clamped, key_bias
from page4d.network.presence import on_absent, with_absent
from page4d.network.rope import Rope


class GlobalSA(nn.Module):
    """A full block over all T*V*N tokens of a stream, no mask bias; keypoints pull the geo stream's attention."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.config, self.streams = config, config.streams_in(layer)
        self.block = Block(config.width, config.heads, *config.eps)
        if config.biased(layer):
            self.lambda_kpt = nn.Parameter(torch.empty(()))

    def forward(
        self,
        tokens: Tensor,
        layout: Layout,
        keypoints: Tensor | None = None,
        memory: Tensor | None = None,
        doubt: float = 0.0,
        present: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """One pass.

        Args:
            tokens: `[S,B,T,V,N,C]`.
            layout: of the clip.
            keypoints: K_ext `[B,T,V,P,1]` in [0,1], or None.
            memory: `[S,B,M,C]` where the strategy is `memory`.
            doubt: share by which confidences may be off, for landmarks as they might be chosen then (see `largest`).
            present: `[B,T,V]`, 1 for the images that are there, or None for all.

        Returns:
            tokens, and memory as it leaves the block (None for the other strategies).
        """
        x = tokens.flatten(2, 4).flatten(0, 1)  # [S*B,T*V*N,C]
        bias = None
        if hasattr(self, "lambda_kpt") and keypoints is not None:
            pull = clamped(self.lambda_kpt)
            bias = key_bias(keypoints, torch.zeros_like(pull), pull, layout)
            bias = bias.flatten(2).flatten(0, 1).to(x.dtype)  # [S*B,T*V*N]
        if present is not None:
            absent = on_absent(present, layout, x).flatten(1)  # [B,T*V*N]
            bias = with_absent(bias, absent, x.shape[0])
        rope = ropes.spatial(layout, self.config.head_dim, x)
        if self.config.global_strategy is GlobalStrategy.LANDMARK:
            x = self._landmark(x, rope, bias, keypoints, layout, doubt)
        elif self.config.global_strategy is GlobalStrategy.DILATED:
            seg_ptr, seg = (torch.from_numpy(array) for array in layout.dilated_segments(self.config.dilations))
            x = self.block(x, rope, partial(segment_attention, key_bias=bias, seg_ptr=seg_ptr, seg=seg))
        else:
            assert memory is not None
            x, bank = self._memory(x, rope, bias, memory.flatten(0, 1))
            memory = bank.unflatten(0, memory.shape[:2])
        return x.unflatten(0, tokens.shape[:2]).unflatten(2, (layout.T, layout.V, layout.N)), memory

    def _landmark(
        self, x: Tensor, rope: Rope, bias: Tensor | None, keypoints: Tensor | None, layout: Layout, doubt: float
    ) -> Tensor:
        clips, width = x.shape[0], x.shape[-1]
        if keypoints is not None:  # [B,T,V,P,1] -> [S*B,T*V,P]
            confidence = keypoints.flatten(1, 2).squeeze(-1).repeat(clips // layout.B, 1, 1)
        else:
            confidence = island(x).norm(dim=-1).unflatten(1, (layout.frames, layout.N))[..., layout.special :]
        patch = largest(confidence, layout.anchors_per_frame(self.config.landmarks), doubt)  # [S*B,T*V,k]
        token = layout.special + patch  # index within its view
        frame = torch.arange(layout.frames, device=x.device)[:, None] * layout.N
        within_clip = (token + frame).flatten(1)  # [S*B,T*V*k]
        index = (within_clip + torch.arange(clips, device=x.device)[:, None] * layout.global_tokens).flatten()
        anchors = x.flatten(0, 1).index_select(0, index).unflatten(0, within_clip.shape)
        anchor_bias = None if bias is None else bias.flatten().index_select(0, index).unflatten(0, within_clip.shape)
        assert anchors.shape == (clips, layout.anchors(self.config.landmarks), width)
        attend = partial(biased_attention, key_bias=anchor_bias)
        return self.block(x, rope, attend, context=anchors, context_rope=rope.rows(token.flatten(1)))

    def _memory(self, x: Tensor, rope: Rope, bias: Tensor | None, memory: Tensor) -> tuple[Tensor, Tensor]:
        # memory [S*B,M,C]; its tokens stand at position 0
        at_zero = ropes.zeros(memory.shape[1], self.config.head_dim, x)
        frames = x.shape[1] // rope.cos.shape[0]
        of_all = (torch.cat((zero, table.repeat(frames, 1, 1))) for zero, table in zip(at_zero, rope, strict=True))
        everywhere = Rope(*of_all)
        read_bias = write_bias = None
        if bias is not None:
            # both of the stage's attention nodes have the same inputs, so that one function body serves them: the
            # write's bias is 0
            like = bias if bias.shape[1] >= memory.shape[1] else memory[..., 0]  # a small clip has fewer tokens
            write_bias = torch.zeros_like(like[:, : memory.shape[1]])
            read_bias = torch.cat((write_bias, bias), dim=1)
        memory = self.block(
            memory,
            at_zero,
            partial(biased_attention, key_bias=read_bias),
            context=torch.cat((memory, x), dim=1),
            context_rope=everywhere,
        )
        x = self.block(x, rope, partial(biased_attention, key_bias=write_bias), context=memory, context_rope=at_zero)
        return x, memory


def largest(confidence: Tensor, k: int, doubt: float = 0.0) -> Tensor:
    """Indices of the k largest entries of the last axis, int64 `[...,k]`; ties go to the lower index.

    With a doubt, entries that lie no further from the k-th largest than this share of it change their order: the choice
    that differs most among those that rounding may lead to.
    """
    if doubt:
        last = confidence.topk(k).values[..., -1:]
        confidence = torch.where((confidence - last).abs() <= doubt * last.abs(), 2 * last - confidence, confidence)
    if torch.onnx.is_in_onnx_export():
        return confidence.topk(k).indices  # ONNX defines TopK's ties so; PyTorch's topk leaves them open
    return confidence.sort(dim=-1, descending=True, stable=True).indices[..., :k]
