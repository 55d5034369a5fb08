"""COCO files of a view. instances.py writes them, entries.py makes their records, stable_ids.py numbers them the same in every run."""

from sinks.coco.instances import CocoSettings, CocoSink, CocoTargetError

__all__ = ["CocoSettings", "CocoSink", "CocoTargetError"]
