"""Run folders and what lies in them: row files and their blocks, canonical JSON, kept replies, the environment."""

from corrector.records.folder import WAITING, RunFolder, default_name, read_json, read_rows

__all__ = ["WAITING", "RunFolder", "default_name", "read_json", "read_rows"]
