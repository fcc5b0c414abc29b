"""Where edgeopt keeps what it was asked to set up."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

__all__ = ["data_folder"]


def data_folder() -> Path:
    """``$EDGEOPT_DATA_DIR``, or the platform's folder for data of edgeopt's; it need not exist."""
    chosen = os.environ.get("EDGEOPT_DATA_DIR")
    return Path(chosen) if chosen else Path(platformdirs.user_data_dir("edgeopt", appauthor=False))
