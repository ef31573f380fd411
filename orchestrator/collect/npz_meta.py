"""The `meta` array of an NPZ file of ours: sizes of the projected modules, and the similarity diagnostic where it ran.

Files of strangers, and of other versions, hold anything under this name: what does not look like ours is not there.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from reports.snapshot import ModuleDims, SimilarityRow, SimilaritySnapshot

_MOST_BYTES = 1 << 26
"""Of the array; a model of a thousand modules takes half a megabyte."""


class NpzMeta(NamedTuple):
    dims: tuple[ModuleDims, ...] = ()
    similarity: SimilaritySnapshot | None = None


def read_meta(archive: zipfile.ZipFile) -> NpzMeta:
    """What a file whose checksums are right says of its modules; nothing where it has no such array, or none of ours."""
    try:
        info = archive.getinfo("meta.npy")
        if info.file_size > _MOST_BYTES:
            return NpzMeta()
        with archive.open(info) as file:
            meta = json.loads(_text(file))
        return NpzMeta(_dims(meta.get("modules") or {}), _similarity(meta.get("similarity")))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return NpzMeta()


def _text(file: Any) -> str:
    import numpy as np

    array = np.lib.format.read_array(file, allow_pickle=False, max_header_size=10_000)
    return str(array[()]) if array.shape == () and array.dtype.kind == "U" else ""


def _dims(modules: Mapping[str, Mapping[str, Any]]) -> tuple[ModuleDims, ...]:
    """One row for each type and size, in the file's order."""
    alike: dict[tuple[str, int, int], list[Mapping[str, Any]]] = {}
    for name, module in modules.items():
        alike.setdefault((name.rpartition(".")[2], int(module["k_in"]), int(module["k_out"])), []).append(module)
    return tuple(
        ModuleDims(
            module_type=kind,
            k_in=k_in,
            k_out=k_out,
            modules=len(found),
            routes=tuple(sorted({str(module["route"]) for module in found if module.get("route")})),
            residual=max((float(r) for module in found if (r := module.get("residual")) is not None), default=None),
        )
        for (kind, k_in, k_out), found in alike.items()
    )


def _similarity(found: Mapping[str, Any] | None) -> SimilaritySnapshot | None:
    if not found:
        return None
    bare = found.get("unprojected") or {}
    return SimilaritySnapshot(
        rows=_rows(found["rows"]),
        residual=found.get("residual"),
        module=bare.get("module"),
        unprojected=_rows(bare.get("rows") or ()),
        correlation=bare.get("correlation"),
        relative_error_of_self_dots=bare.get("relative_error_of_self_dots"),
    )


def _rows(rows: Iterable[Mapping[str, Any]]) -> tuple[SimilarityRow, ...]:
    names = ("mean", "cosine", "self_dot")
    return tuple(
        SimilarityRow(
            matrix=str(row["matrix"]),
            scope=str(row["scope"]),
            pair=str(row["pair"]),
            pairs=int(row["pairs"]),
            **{name: None if row[name] is None else float(row[name]) for name in names},
        )
        for row in rows
    )
