"""`Checkpoint`: a published model's weights, recognised by their names, in one file or in several with an index."""

from __future__ import annotations

import dataclasses
import functools
import math
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from page4d.checkpoints.completeness import check_complete
from page4d.checkpoints.hub.config_json import model_name_beside
from page4d.checkpoints.hub.download import Downloaded, download
from page4d.checkpoints.hub.hub_id import hub_id_of
from page4d.checkpoints.licences import Licence, licence_in, licences_of, summed_up
from page4d.checkpoints.parameter_counts import parameter_counts
from page4d.checkpoints.recognition import known_entries, recognised
from page4d.checkpoints.shard_index import ShardIndex, file_of, is_index
from page4d.checkpoints.stored.stored_heads import CAMERA_ENCODER, heads_in
from page4d.checkpoints.stored.stored_model import MASK_HEAD, StoredModel, stored_model
from page4d.checkpoints.stored.stored_sizes import preset_of, shortfalls, title_of
from page4d.checkpoints.stored.unused_parts import TRACK_HEAD, UnusedPart, unused_part_of, unused_parts
from page4d.checkpoints.tensor_file import PLAIN_DTYPES, TensorFile
from page4d.checkpoints.tensor_reading import places_of, tensors_of
from page4d.config import Head, MaskHeadKind, ModelConfig, Published
from page4d.errors import UsageError
from page4d.published import TRAITS
from page4d.system.progress import SILENT, Progress

if TYPE_CHECKING:
    from torch import Tensor

_ALIKE = {Published.DA3_MONO, Published.DA3_METRIC}  # files of both have the same tensors
_NAMED_MODELS = {"da3mono-large": Published.DA3_MONO, "da3metric-large": Published.DA3_METRIC}  # in config.json
_HEAD_DIM = 64
_WIDEST = 1 << 14  # beyond it a width is damage, and its matrices more than torch can count
_AVERAGED = re.compile(r"(?:^|[^a-z])ema(?:$|[^a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class Checkpoint:
    """A file of weights, or several with an index: its table of contents, not the weights themselves.

    Attributes:
        path: of the file or index.
        published: the model that it belongs to.
        shapes, dtypes: of its tensors, by their names in the model (without the prefixes of trainers and compilers).
        state: names of what a trainer stored beside the weights; never read.
        places: file and name in the file, by the names in the model.
        files: the files that tensors are read from.
        downloaded: where on a hub it comes from; None: a file that was given.
        is_told: whether something said which model the file is; else it may be another one with the same tensors.
    """

    path: pathlib.Path
    published: Published
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    state: tuple[str, ...]
    places: Mapping[str, tuple[TensorFile, str]]
    files: tuple[TensorFile, ...]
    downloaded: Downloaded | None = None
    is_told: bool = True

    @classmethod
    def open(cls, path: str | pathlib.Path, progress: Progress = SILENT) -> Checkpoint:
        """Read a checkpoint's table of contents and recognise the model; of two that are alike by the `config.json`
        beside the file.

        Args:
            path: of a file, of the `*.index.json` of a checkpoint in several files, or of a folder with one such; or
                a repository on a hub: `owner/name` if nothing is there of that name, `hf:owner/name@revision:file`.
            progress: of the download.

        Raises:
            UsageError: no such file; damaged, or of another format; holds code; no model that is known, or MV-PAGE4D,
                or Depth Anything 3 GIANT or NESTED; only a part of a model.
            MissingBackendError: a `.pt` file where torch is not installed, a repository where huggingface_hub is not.
            Page4DError: a repository that cannot be downloaded.
        """
        if not isinstance(path, str | pathlib.Path):
            raise UsageError(
                "a checkpoint is given by its path", got=type(path).__name__, allowed="a string or pathlib.Path"
            )
        hub_id = hub_id_of(path)
        downloaded = None if hub_id is None else download(hub_id, progress)
        file = file_of(pathlib.Path(path) if downloaded is None else downloaded.path)
        files = ShardIndex.read(file).open() if is_index(file) else (TensorFile.open(file),)
        places = places_of(file.name, files)
        tensors = {name: part.tensors[key] for name, (part, key) in places.items()}
        shapes = {name: shape for name, (shape, _) in tensors.items()}
        published = recognised(file, shapes, files)
        checkpoint = cls(
            path=file,
            published=published,
            shapes=shapes,
            dtypes={name: dtype for name, (_, dtype) in tensors.items()},
            state=tuple(dict.fromkeys(name for part in files for name in part.state)),
            places=places,
            files=files,
            downloaded=downloaded,
            is_told=published not in _ALIKE,
        )
        if not checkpoint.is_told and (named := _NAMED_MODELS.get(model_name_beside(file) or "")):
            checkpoint = dataclasses.replace(checkpoint, published=named, is_told=True)
        check_complete(file.name, checkpoint.described, checkpoint.published, checkpoint.mask_head, shapes)
        return checkpoint

    def read_as(self, published: Published) -> Checkpoint:
        """The same file as another model, where its tensors do not tell the two apart; else the file as it is."""
        if published is not self.published and {self.published, published} <= _ALIKE:
            return dataclasses.replace(self, published=published, is_told=True)
        return self

    # ---- what it is

    @property
    def name(self) -> str:
        """Of the file."""
        return self.path.name

    @property
    def mask_head(self) -> MaskHeadKind | None:
        """Structure of PAGE-4D's mask head; None where there is none."""
        shape = self.shapes.get(f"{MASK_HEAD}head0.2.weight")
        if shape is None:
            return None
        return MaskHeadKind.CHECKPOINT_150 if shape[1:] == (1, 3, 3) else MaskHeadKind.CHECKPOINT_2026

    @functools.cached_property
    def predictions(self) -> tuple[Head, ...]:
        """The heads in the file, in the order of their stages; of Pi3's and Pi3X's all or none."""
        return heads_in(self.published, self.shapes)

    @functools.cached_property
    def unused_parts(self) -> tuple[UnusedPart, ...]:
        """Parts of the published model that are in the file, and that no model of this project has."""
        there = {unused_part_of(self.published, name) for name in self.shapes}
        return tuple(part for part in unused_parts(self.published) if part in there)

    @property
    def track_head(self) -> bool:
        """Whether the file has VGGT's track head, which no model of this project has."""
        return TRACK_HEAD in self.unused_parts

    @functools.cached_property
    def camera_encoder(self) -> bool:
        """Whether the file has Depth Anything 3's encoder of known cameras."""
        return self.published is Published.DA3 and CAMERA_ENCODER.key in self.shapes

    @property
    def origin(self) -> str:
        """What a command is given for this checkpoint: the name of the file, or of repository, revision and file."""
        return self.name if self.downloaded is None else str(self.downloaded.source)

    @property
    def licences(self) -> tuple[Licence, ...]:
        """Of the repository, or of the published weights that the file may be: where several, it does not say which."""
        if self.downloaded is not None:
            return (licence_in(self.downloaded.source.repository, self.downloaded.licence),)
        return licences_of(self.published, self.width)

    @property
    def licence(self) -> str:
        """The licences as one text."""
        return summed_up(self.licences) if self.downloaded else f"as published: {summed_up(self.licences)}"

    @functools.cached_property
    def _stored(self) -> StoredModel:
        return stored_model(self.published, self.shapes)

    @functools.cached_property
    def encoder_depth(self) -> int:
        """Blocks of the encoder."""
        return self._stored.encoder_depth(self.shapes)

    @functools.cached_property
    def depth(self) -> int:
        """Aggregator layers, of two blocks each; 0 of a model that is an encoder alone."""
        return self._stored.depth(self.shapes)

    @property
    def width(self) -> int:
        """C; 0 where no tensor says it."""
        tokens = (*self._stored.special[-1:], f"{self._stored.encoder}cls_token")
        return (self.shapes.get(tokens[0]) or (0,))[-1]

    @property
    def registers(self) -> int:
        """Register tokens beside the camera token."""
        if not TRAITS[self.published].registers:
            return 0
        camera = int("camera_token" not in self._stored.special[0])  # Pi3 has it among them
        shape = self.shapes.get(self._stored.special[-1], ())
        return max(shape[-2] - camera, 0) if len(shape) > 1 else 0

    @property
    def preset(self) -> str:
        """The preset that the file is; where it has other sizes than all, the nearest."""
        return preset_of(self.published, self.width, self.encoder_depth, self.depth)

    @property
    def described(self) -> str:
        """The model's name and variant: `PAGE-4D 2026`, `Depth Anything 3 SMALL`."""
        variant = f" {self.mask_head}" if self.published is Published.PAGE4D and self.mask_head else ""
        return title_of(self.published, self.width, self.encoder_depth, self.depth) + variant

    @property
    def paths(self) -> tuple[pathlib.Path, ...]:
        """Every file that is read: the file itself, or the index and its files."""
        return tuple(dict.fromkeys((self.path, *(file.path for file in self.files))))

    @functools.cached_property
    def notes(self) -> tuple[str, ...]:
        """What is unusual and no error: fewer layers than published, averaged weights beside the others."""
        notes = list(shortfalls(self.published, self.width, self.depth, self.encoder_depth, self.shapes))
        notes += [part.note for part in self.unused_parts]
        if not self.is_told:
            notes.append(
                "its tensors are those of Depth Anything 3 MONO and METRIC alike, which differ in metres alone: taken"
                " as MONO; --preset da3-metric says that it is METRIC"
            )
        prefixes = (f"{name.split('.')[0]}.*" for name in self.shapes)
        entries = dict.fromkeys((*known_entries(self.files), *prefixes))
        averaged = [name for name in entries if _AVERAGED.search(name)]
        if averaged:
            notes.append(
                f"averaged weights ({', '.join(averaged[:3])}) are not read;"
                " to use them, save them as a file of their own"
            )
        matrix_types = {dtype for name, dtype in self.dtypes.items() if name.endswith(".weight")}
        if unreadable := sorted(matrix_types - set(PLAIN_DTYPES.values())):
            notes.append(f"matrices of type {', '.join(unreadable)} cannot be read; save them as float16 or bfloat16")
        return tuple(f"{self.name}: {note}" for note in notes)

    def require_heads(self, heads: Iterable[Head]) -> None:
        """Check that the file has heads that were asked for.

        Raises:
            UsageError: it lacks one.
        """
        lacking = [head for head in heads if head not in self.predictions]
        if lacking:
            there = ",".join(self.predictions) or "none"
            raise UsageError(
                f"{self.name} has no {lacking[0]} head",
                got=f"heads {', '.join(heads)}",
                allowed=f"the heads in the file: {there}",
                hint=f"--heads {there}",
            )

    def config(self, **overrides: Any) -> ModelConfig:
        """The published model that the file holds: with as many layers as it has, and its heads.

        Args:
            overrides: options of `ModelConfig`, in place of what the file says. `predictions=True` stands for the
                heads that the file has.

        Raises:
            UsageError: an option that is not allowed; a head that the file lacks.
        """
        known: dict[str, Any] = {"depth": self.depth, "encoder_depth": max(self.encoder_depth, 1)}
        if self.width % _HEAD_DIM or self.width > _WIDEST:
            raise UsageError(
                f"{self.name}: the special tokens have a width that no such model has",
                got=self.width,
                allowed=f"a multiple of {_HEAD_DIM}, up to {_WIDEST}",
            )
        if self.width:
            known |= {"width": self.width, "heads": self.width // _HEAD_DIM}
        known["predictions"] = self.predictions
        if overrides.get("predictions") is True:
            del overrides["predictions"]
        if self.mask_head is not None:
            known["mask_head"] = str(self.mask_head)
        config = ModelConfig.preset(self.preset, **(known | overrides))
        self.require_heads(config.predictions)
        return config

    def document(self) -> dict[str, Any]:
        """Everything that is known without the weights, in plain values."""
        return {
            "file": str(self.path),
            "repository": "" if self.downloaded is None else self.downloaded.source.repository,
            "revision": "" if self.downloaded is None else self.downloaded.source.revision,
            "bytes": sum(file.path.stat().st_size for file in self.files),
            "model": str(self.published),
            "preset": self.preset,
            "described": self.described,
            "mask_head": None if self.mask_head is None else str(self.mask_head),
            "width": self.width,
            "encoder_blocks": self.encoder_depth,
            "layers": self.depth,
            "registers": self.registers,
            "predictions": [str(head) for head in self.predictions],
            "unused_heads": ["track"] if self.track_head else [],
            "unused_parts": [part.name for part in self.unused_parts],
            "camera_encoder": self.camera_encoder,
            "licences": [dataclasses.asdict(licence) for licence in self.licences],
            "tensors": len(self.shapes),
            "parameters": sum(math.prod(shape) for shape in self.shapes.values()),
            "parameters_of": parameter_counts(self.published, self.shapes),
            "dtypes": sorted(set(self.dtypes.values())),
            "beside": list(self.state),
            "files": [path.name for path in self.paths],
            "notes": list(self.notes),
        }

    # ---- reading

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """Each name with its tensor, one after the other: in the file's dtype, on the CPU.

        Each lies in a mapped file, and is to be copied before the next is asked for.

        Raises:
            UsageError: what is under a name is no plain tensor of floating-point numbers.
        """
        return tensors_of(self.name, self.places, names)
