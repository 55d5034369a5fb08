"""The gallery: one HTML page of a view, pictures with their labels drawn over them. page.py makes it, selection.py chooses, drawing.py draws."""

from sinks.gallery.page import PAGE, GallerySettings, GallerySink, ImageUnavailableError, JobFacts, LoadImage

__all__ = ["PAGE", "GallerySettings", "GallerySink", "ImageUnavailableError", "JobFacts", "LoadImage"]
