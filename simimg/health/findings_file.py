"""The findings of the last audit of an index, kept in its folder, so that the search page shows them at once.

    <index_dir>/web/findings.json

All findings are in it, also those that were decided about: decisions are made and taken back while the file stays. It
belongs to one generation of the index and one audit, whose `version` tells pages apart that show another one.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
from contextlib import suppress
from typing import Any

import numpy as np

from simimg.errors import SimimgError
from simimg.health.audited_images import AuditedImages
from simimg.health.collection_audit import Audit
from simimg.health.finding import Finding
from simimg.similarity.index_info import THUMBNAILS
from simimg.similarity.search_index import SearchIndex
from tfrecords.format.atomic_files import atomic_file
from tfrecords.storage.uploads import rewritten

_FORMAT = "simimg-findings/1"
_FOLDER = THUMBNAILS.partition("/")[0]


@dataclasses.dataclass(frozen=True)
class KeptAudit:
    """An audit of all kinds, and the name of its version."""

    audit: Audit
    version: str


def save_findings(index: SearchIndex, found: Audit) -> KeptAudit:
    """Keep an audit of all kinds, without regard to decisions; nothing is written if the index is read-only."""
    kept = KeptAudit(found, secrets.token_hex(8))
    values: dict[str, Any] = {
        "format": _FORMAT,
        "version": kept.version,
        "index": _key(index),
        "findings": [dataclasses.asdict(one) for one in found.findings],
        "num_images": found.num_images,
        "refused": list(found.refused),
        "notes": list(found.notes),
        "label_accuracy": found.label_accuracy,
        "agreement": None if found.agreement is None else [
            None if np.isnan(value) else round(value, 4) for value in found.agreement.tolist()
        ],
        "likely": {path: list(names) for path, names in found.likely.items()},
    }  # fmt: skip
    name = f"{_FOLDER}/findings.json"
    with suppress(OSError, UnicodeEncodeError, SimimgError), rewritten(index.index_dir, name, "--index_dir") as folder:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path, sync=False) as file:
            file.write(json.dumps(values, ensure_ascii=False).encode())
    return kept


def load_findings(index: SearchIndex) -> KeptAudit | None:
    """Return the audit that was kept of this generation of an index; None if there is none."""
    try:
        values = json.loads((index.index_dir / _FOLDER / "findings.json").read_bytes())
        if values["format"] != _FORMAT or values["index"] != _key(index):
            return None
        agreement = values["agreement"]
        audit = Audit(
            tuple(Finding(**{**one, "evidence": tuple(one["evidence"])}) for one in values["findings"]),
            values["num_images"],
            AuditedImages.of_index(index),
            tuple((path, reason) for path, reason in values["refused"]),
            tuple(values["notes"]),
            values["label_accuracy"],
            agreement=None if agreement is None else np.array(agreement, np.float64),
            likely={path: tuple(names) for path, names in values["likely"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError):  # missing, or damaged by a power failure
        return None
    return KeptAudit(audit, values["version"])


def _key(index: SearchIndex) -> list[Any]:
    return [index.info.generation, index.info.model_fingerprint, index.info.image_dir, index.info.dataset_dir]
