"""The network a second time: explicit loops, explicit n x n logits, float64, and no code of the reference model."""

import functools
import math

import numpy as np
import torch

PATCH, REGISTERS, SPECIAL = 14, 4, 5
# PAGE-4D's own mask: the layer whose View-SA the head reads, the first and the last layer whose Time-SA it biases, its
# factor on special rows
OWN_MASK = {"150": (7, 8, 23, 1.0), "2026": (9, 10, 19, 64.0)}


def forward(
    config,
    weights,
    position,
    images,
    mask_ext=None,
    keypoints=None,
    cameras=None,
    memory=None,
    special_tokens=None,
    present=None,
):
    """One clip.

    `weights`: state dict in float64; `position`: the encoder's positional embedding for this grid (checked elsewhere);
    images uint8 [T,V,H,W,3]; maps [T,V,P,1]; `special_tokens` [V,1,C] of known cameras; `present` [T,V], the tokens of
    other images are in no sequence, and NaN in what is given.
    Gives mask [T,V,h,w] or None, kept layers {i: [T,V,N,S*C]}, memory [S,M,C] or None.
    """
    T, V, H, W, _ = images.shape
    h, w = H // PATCH, W // PATCH
    net = Net(config, weights, T, V, h, w, cameras)
    zero = torch.zeros(T, V, h * w, 1, dtype=torch.float64)
    mask_ext = zero if mask_ext is None else mask_ext
    frames = [(t, v) for t in range(T) for v in range(V) if present is None or present[t, v]]
    encoded = {frame: net.encode(images[frame], position) for frame in frames}
    reference = frames[0]
    if config.reference_view == "saddle_balanced":
        reference = frames[balanced([cls.tolist() for _, cls in encoded.values()])]
    stream = {}
    for t, v in frames:
        special = (
            weights["special_tokens"][0 if (t, v) == reference else 1] if special_tokens is None else special_tokens[v]
        )
        stream[t, v] = torch.cat([special, encoded[t, v][0]])
    streams, mask, columns, kept = [stream], None, None, {}
    own_after, own_first, own_last, _ = (
        OWN_MASK[str(config.mask_head)] if config.published == "page4d" and config.mask else (-1, 0, -1, 0)
    )
    banks = None
    if config.global_strategy == "memory" and config.global_layers:
        start = weights["memory_tokens"]
        banks = [start.clone() if memory is None else memory[s] for s in range(config.streams)]
    for i in range(config.depth):
        if config.published is None and i == config.mask_layer:
            mask = {key: net.mask(streams[0], mask_ext, *key) for key in streams[0]}
            streams = [dict(streams[0]) for _ in range(config.streams)]
        parts = []
        for block in config.order:
            if block == "view":
                streams = [net.view_sa(f"layers.{i}.", x, s, mask) for s, x in enumerate(streams)]
                if i == own_after:
                    masks = {key: net.own_mask(streams[0], *key) for key in streams[0]}
                    mask, columns = ({key: pair[part] for key, pair in masks.items()} for part in range(2))
            else:
                streams = [
                    net.time_sa(f"layers.{i}.", x, s, mask, columns if own_first <= i <= own_last else None)
                    for s, x in enumerate(streams)
                ]
            parts.append(streams)
        if i in config.global_layers:
            for s, x in enumerate(streams):
                streams = [*streams]
                streams[s], bank = net.global_sa(
                    f"layers.{i}.global_sa.", x, s, len(streams), keypoints, None if banks is None else banks[s]
                )
                if banks is not None:
                    banks[s] = bank
        if i in config.keep_layers:
            sources = parts if config.layer_output == "pair" else [streams]
            rows = {}
            for frame in frames:
                channels = [
                    source[s if len(source) > 1 else 0][frame] for s in range(config.streams) for source in sources
                ]
                rows[frame] = torch.cat(channels, -1)
            kept[i] = spread(rows, T, V)
    if mask is not None:
        mask = spread({frame: mask[frame].reshape(h, w) for frame in frames}, T, V)
    return mask, kept, None if banks is None else torch.stack(banks)


def spread(values, T, V):
    """Values by (t, v) as one tensor [T,V,..], NaN where there is none."""
    whole = torch.full((T, V, *next(iter(values.values())).shape), torch.nan, dtype=torch.float64)
    for frame, value in values.items():
        whole[frame] = value
    return whole


def features(config, weights, position, images, blocks):
    """Patch tokens [T,V,P,C] of an encoder alone after each of some blocks."""
    T, V, H, W, _ = images.shape
    net = Net(config, weights, T, V, H // PATCH, W // PATCH, None)
    rows = [net.taps(images[t, v], position, blocks) for t in range(T) for v in range(V)]
    return [torch.stack(level).reshape(T, V, *level[0].shape) for level in zip(*rows, strict=True)]


def balanced(tokens):
    """The view whose cls token is nearest to the middle in three measures; plain numbers."""
    if len(tokens) < 3:
        return 0
    lengths = [math.sqrt(sum(value**2 for value in token)) for token in tokens]
    units = [[value / length for value in token] for token, length in zip(tokens, lengths, strict=True)]
    cosines = [
        sum(sum(a * b for a, b in zip(unit, other, strict=True)) for j, other in enumerate(units) if j != i)
        / (len(units) - 1)
        for i, unit in enumerate(units)
    ]
    means = [sum(unit) / len(unit) for unit in units]
    variances = [
        sum((value - mean) ** 2 for value in unit) / (len(unit) - 1) for unit, mean in zip(units, means, strict=True)
    ]
    off = [0.0] * len(tokens)
    for measure in (cosines, lengths, variances):
        for view, value in enumerate(measure):
            off[view] += abs((value - min(measure)) / (max(measure) - min(measure) + 1e-8) - 0.5)
    return off.index(min(off))


@functools.cache
def turns(places, quarter):
    """Cosine and sine [n,2,quarter] of every place's angles, each computed on its own in float32."""
    angles = np.zeros((len(places), 2, quarter))
    for row, place in enumerate(places):
        for half in range(2):
            for i in range(quarter):
                frequency = np.float32(1.0) / np.float32(100.0) ** np.float32(2 * i / (2 * quarter))
                angles[row, half, i] = np.float32(place[half]) * frequency
                if len(place) == 3:
                    angles[row, half, i] = np.float32(angles[row, half, i]) + np.float32(place[2]) * frequency
    return torch.from_numpy(np.cos(angles)), torch.from_numpy(np.sin(angles))


class Net:
    def __init__(self, config, weights, T, V, h, w, cameras):
        self.c, self.w, self.T, self.V, self.h, self.wd, self.cameras = config, weights, T, V, h, w, cameras
        self.is_da3 = str(config.published).startswith("da3")
        self.registers = 0 if self.is_da3 else REGISTERS
        self.special = 1 + self.registers
        self.P, self.N = h * w, self.special + h * w
        # of aggregator blocks, by the weights' source
        self.eps = (1e-5, 1e-5) if config.published in ("vggt", "page4d") else (1e-6, 1e-5)
        self.places = [(0, 0)] * self.special + [(y + 1, x + 1) for y in range(h) for x in range(w)]
        # Depth Anything 3 does not tell patches apart by place where all views meet
        self.places_in_views = [(0, 0)] + [(1, 1)] * self.P if self.is_da3 else self.places

    # ---- pieces

    def linear(self, name, x):
        return x @ self.w[name + ".weight"].T + self.w[name + ".bias"]

    def norm(self, name, x, eps):
        centred = x - x.mean(-1, keepdim=True)
        return (
            centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + eps) * self.w[name + ".weight"]
            + self.w[name + ".bias"]
        )

    def rotate(self, x, places):
        """x [n,D] of one head; places (y, x) or (y, x, t)."""
        cos, sin = turns(tuple(places), x.shape[1] // 4)
        out, quarter = x.clone(), x.shape[1] // 4
        for half in range(2):
            a, b = (slice((2 * half + part) * quarter, (2 * half + part + 1) * quarter) for part in range(2))
            out[:, a] = x[:, a] * cos[:, half] - x[:, b] * sin[:, half]
            out[:, b] = x[:, b] * cos[:, half] + x[:, a] * sin[:, half]
        return out

    def block(self, name, x, context, places, context_places, bias, eps=1e-6, qk_eps=1e-5, scaled=True):
        """x [n,C] asks, context [m,C] answers (None: x); bias [A or 1,n,m].

        qk_eps None: no norm of q and k; scaled False: no LayerScale.
        """
        C, A = self.c.width, self.c.heads
        D = C // A
        keys = x if context is None else context
        weight, offset = self.w[name + "attn.qkv.weight"], self.w[name + "attn.qkv.bias"]
        q = self.norm(name + "norm1", x, eps) @ weight[:C].T + offset[:C]
        k = self.norm(name + "norm1", keys, eps) @ weight[C : 2 * C].T + offset[C : 2 * C]
        v = self.norm(name + "norm1", keys, eps) @ weight[2 * C :].T + offset[2 * C :]
        heads = []
        for a in range(A):
            qa, ka, va = (z[:, a * D : (a + 1) * D] for z in (q, k, v))
            if qk_eps is not None:
                qa, ka = self.norm(name + "attn.q_norm", qa, qk_eps), self.norm(name + "attn.k_norm", ka, qk_eps)
            if places is not None:
                qa, ka = self.rotate(qa, places), self.rotate(ka, places if context is None else context_places)
            logits = qa @ ka.T / math.sqrt(D)
            if bias is not None:
                logits = logits + bias[min(a, len(bias) - 1)]
            weights = torch.exp(logits - logits.max(1, keepdim=True).values)
            heads.append(weights / weights.sum(1, keepdim=True) @ va)
        first, second = (self.w[name + f"ls{part}.gamma"] if scaled else 1.0 for part in (1, 2))
        x = x + first * self.linear(name + "attn.proj", torch.cat(heads, 1))
        hidden = self.linear(name + "mlp.fc1", self.norm(name + "norm2", x, eps))
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
        return x + second * self.linear(name + "mlp.fc2", hidden)

    def clamp(self, name):
        return min(4.0, max(-4.0, float(self.w[name])))

    # ---- stages

    def encode(self, image, position):
        """Patch tokens [P,C], and the cls token [C] that enters the last block."""
        x = self.prepared(image, position)
        for i in range(self.c.encoder_depth):
            cls = x[0]
            x = self.block(f"encoder.blocks.{i}.", x, None, None, None, None, qk_eps=None)
        patches = x[self.special :]
        return patches if self.is_da3 else self.norm("encoder.norm", patches, 1e-6), cls

    def taps(self, image, position, blocks):
        x, after = self.prepared(image, position), {}
        for i in range(self.c.encoder_depth):
            x = after[i] = self.block(f"encoder.blocks.{i}.", x, None, None, None, None, qk_eps=None)
        return [after[i][self.special :] for i in blocks]

    def prepared(self, image, position):
        mean = np.float32([0.485, 0.456, 0.406]).astype(np.float64)
        std = np.float32([0.229, 0.224, 0.225]).astype(np.float64)
        pixels = torch.from_numpy((np.asarray(image, np.float64) / 255 - mean) / std)
        kernel, offset = self.w["encoder.patch_embed.proj.weight"], self.w["encoder.patch_embed.proj.bias"]
        patches = []
        for y in range(self.h):
            for x in range(self.wd):
                square = pixels[y * PATCH : (y + 1) * PATCH, x * PATCH : (x + 1) * PATCH].permute(2, 0, 1)
                patches.append((kernel * square).sum((1, 2, 3)) + offset + position[0, 1 + len(patches)])
        cls = self.w["encoder.cls_token"][0] + position[0, :1]
        registers = [self.w["encoder.register_tokens"][0]] if self.registers else []
        return torch.cat([cls, *registers, torch.stack(patches)])

    def logit(self, patches):
        """What head0 gives for each patch of an image, [P]."""
        grid = patches.T.reshape(-1, self.h, self.wd)
        if self.c.mask_head == "2026":
            normal = torch.zeros_like(grid)
            for channel in range(len(grid)):
                centred = grid[channel] - grid[channel].mean()
                spread = math.sqrt(float((centred**2).sum()) / max(self.P - 1, 1))
                normal[channel] = centred / max(spread, 1e-6)
            logit = self.pointwise(
                "4", self.gelu(self.pointwise("2", self.gelu(self.depthwise("0", normal))))
            ) + normal.mean(0, keepdim=True)
        else:
            logit = self.pointwise("4", self.gelu(self.depthwise("2", self.gelu(self.depthwise("0", grid)))))
        return logit.reshape(-1)

    def own_mask(self, tokens, t, v):
        """PAGE-4D's mask of an image: M and the bias of its keys, [P] each, from a logit that is large where static."""
        m = self.logit(tokens[t, v][SPECIAL:])
        dynamic = 1 / (1 + torch.exp(m))
        if self.c.mask_head == "2026":
            return dynamic, 1 / (1 + torch.exp(-m)) - 0.5
        a, tau = (math.log(1 + math.exp(float(self.w[f"mask_head.{name}_logit"]))) + 1e-6 for name in ("alpha", "tau"))
        pull = a / (1 + torch.exp(m / max(tau, 1e-3)))
        return dynamic, torch.tensor([-0.5 * min(1.0, max(0.0, float(value))) for value in pull], dtype=torch.float64)

    def mask(self, tokens, mask_ext, t, v):
        patches = tokens[t, v][SPECIAL:]
        logit = self.logit(patches)
        alpha = beta = None
        if self.c.fusion == "gate":
            gate = self.linear("mask_head.gate.2", self.gelu(self.linear("mask_head.gate.0", patches)))
            alpha, beta = gate[:, 0], gate[:, 1]
        else:
            alpha, beta = self.w["mask_head.alpha"], self.w["mask_head.beta"]
        return 1 / (1 + torch.exp(-(alpha * logit + beta * mask_ext[t, v, :, 0])))

    @staticmethod
    def gelu(x):
        return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))

    def depthwise(self, layer, grid):
        kernel, offset = self.w[f"mask_head.head0.{layer}.weight"], self.w[f"mask_head.head0.{layer}.bias"]
        out = torch.zeros_like(grid)
        for y in range(self.h):
            for x in range(self.wd):
                for dy in range(3):
                    for dx in range(3):
                        if 0 <= y + dy - 1 < self.h and 0 <= x + dx - 1 < self.wd:
                            out[:, y, x] += kernel[:, 0, dy, dx] * grid[:, y + dy - 1, x + dx - 1]
                out[:, y, x] += offset
        return out

    def pointwise(self, layer, grid):
        kernel, offset = self.w[f"mask_head.head0.{layer}.weight"][:, :, 0, 0], self.w[f"mask_head.head0.{layer}.bias"]
        return torch.einsum("oc,cyx->oyx", kernel, grid) + offset[:, None, None]

    def key_bias(self, pull, values):
        """Bias of one view's keys: nothing on special tokens."""
        return torch.cat([torch.zeros(SPECIAL, dtype=torch.float64), pull * values])

    def view_sa(self, layer, tokens, s, mask):
        name = layer + "view_sa."
        out = {}
        for t in range(self.T):
            views = [v for v in range(self.V) if (t, v) in tokens]
            if not views:
                continue
            n = len(views) * self.N
            bias = torch.zeros(1, n, n, dtype=torch.float64)
            if mask is not None and self.c.streams > 1:
                pull = -self.clamp(name + "lambda_pose") if s == 0 else self.clamp(name + "lambda_geo")
                bias = bias + torch.cat([self.key_bias(pull, mask[t, v]) for v in views])
            if self.c.epipolar:
                rows = [v * self.N + i for v in views for i in range(self.N)]
                bias = bias + self.epipolar()[rows][:, rows]
            x = self.block(
                name + "block.",
                torch.cat([tokens[t, v] for v in views]),
                None,
                self.places_in_views * len(views),
                None,
                bias,
                *self.eps,
            )
            out |= {(t, v): x[i * self.N : (i + 1) * self.N] for i, v in enumerate(views)}
        return out

    def time_sa(self, layer, tokens, s, mask, columns=None):
        name = layer + "time_sa."
        out = {}
        for v in range(self.V):
            times = [t for t in range(self.T) if (t, v) in tokens]
            if not times:
                continue
            n = len(times) * self.N
            bias = torch.zeros(self.c.heads, n, n, dtype=torch.float64)
            if mask is not None and self.c.streams > 1:
                pull = -self.clamp(name + "lambda_pose_t") if s == 0 else self.clamp(name + "lambda_geo_t")
                bias = bias + torch.cat([self.key_bias(pull, mask[t, v]) for t in times])
            if columns is not None:
                gain = OWN_MASK[str(self.c.mask_head)][3]
                rows = ([gain] * SPECIAL + [0.0] * self.P) * len(times)
                keys = [c for t in times for c in [0.0] * SPECIAL + columns[t, v].tolist()]
                for i in range(n):
                    for j in range(n):
                        bias[:, i, j] += rows[i] * keys[j]
            places = self.places * len(times)
            if self.c.time_encoding == "rope":
                places = [(y, x, t) for t in times for y, x in self.places]
            if self.c.time_encoding == "alibi":
                for a in range(self.c.heads):
                    for i, tq in enumerate(times):
                        for j, tk in enumerate(times):
                            slope = 2 ** (-8 * (a + 1) / self.c.heads)
                            bias[a, i * self.N : (i + 1) * self.N, j * self.N : (j + 1) * self.N] -= slope * abs(
                                tq - tk
                            )
            x = self.block(
                name + "block.", torch.cat([tokens[t, v] for t in times]), None, places, None, bias, *self.eps
            )
            out |= {(t, v): x[i * self.N : (i + 1) * self.N] for i, t in enumerate(times)}
        return out

    def epipolar(self):
        """Penalty [n,n], from rays: a line in another view joins the camera's centre and a point on the query's ray."""
        n = self.V * self.N
        penalty = torch.zeros(n, n, dtype=torch.float64)
        rig = [
            (np.array(camera["K"], float), np.array(camera["world_to_camera"], float))
            for camera in self.cameras.values()
        ]
        for a, (Ka, Ea) in enumerate(rig):
            for b, (Kb, Eb) in enumerate(rig):
                centre = -Ea[:, :3].T @ Ea[:, 3]
                if a == b or np.linalg.norm(centre + Eb[:, :3].T @ Eb[:, 3]) < 1e-6:
                    continue
                for i in range(self.P):
                    pixel = np.array([14 * (i % self.wd + 0.5), 14 * (i // self.wd + 0.5), 1.0])
                    on_ray = centre + Ea[:, :3].T @ np.linalg.inv(Ka) @ pixel
                    ends = [Kb @ (Eb[:, :3] @ point + Eb[:, 3]) for point in (centre, on_ray)]
                    line = np.cross(*ends)
                    for j in range(self.P):
                        key = np.array([14 * (j % self.wd + 0.5), 14 * (j // self.wd + 0.5), 1.0])
                        if abs(line @ key) / np.linalg.norm(line[:2]) > self.c.epipolar_band:
                            penalty[a * self.N + SPECIAL + i, b * self.N + SPECIAL + j] = -self.c.epipolar_penalty
        return penalty

    def global_sa(self, name, tokens, s, streams, keypoints, bank):
        frames = [(t, v) for t in range(self.T) for v in range(self.V) if (t, v) in tokens]
        x = torch.cat([tokens[f] for f in frames])
        n, places = len(x), self.places * len(frames)
        pull = self.clamp(name + "lambda_kpt") if streams > 1 and s == 1 and keypoints is not None else 0.0
        column = torch.zeros(n, dtype=torch.float64)
        if keypoints is not None:
            column = torch.cat([self.key_bias(pull, keypoints[t, v, :, 0]) for t, v in frames])
        if self.c.global_strategy == "landmark":
            chosen = []
            for number, (t, v) in enumerate(frames):
                patches = tokens[t, v][SPECIAL:]
                confidence = (
                    keypoints[t, v, :, 0].tolist() if keypoints is not None else [float(p.norm()) for p in patches]
                )
                best = sorted(range(self.P), key=lambda p: (-confidence[p], p))[: min(self.c.landmarks, self.P)]
                chosen += [number * self.N + SPECIAL + p for p in best]
            x = self.block(
                name + "block.",
                x,
                x[chosen],
                places,
                [places[i] for i in chosen],
                column[chosen].expand(1, n, len(chosen)),
            )
        elif self.c.global_strategy == "dilated":
            bias = torch.full((1, n, n), -math.inf, dtype=torch.float64)
            for i, (tq, vq) in enumerate(frames):
                for j, (tk, vk) in enumerate(frames):
                    near = (tq, vq) == (tk, vk) or any(
                        tk - tq in (-level, 0, level) and vk - vq in (-level, 0, level) for level in self.c.dilations
                    )
                    if near:
                        bias[0, i * self.N : (i + 1) * self.N, j * self.N : (j + 1) * self.N] = 0
            x = self.block(name + "block.", x, None, places, None, bias + column)
        else:
            m = len(bank)
            zero = [(0, 0)] * m
            read = torch.cat([torch.zeros(m, dtype=torch.float64), column]).expand(1, m, m + n)
            bank = self.block(name + "block.", bank, torch.cat([bank, x]), zero, zero + places, read)
            x = self.block(name + "block.", x, bank, places, zero, None)
        return {f: x[i * self.N : (i + 1) * self.N] for i, f in enumerate(frames)}, bank
