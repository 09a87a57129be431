"""Bundled weights; one folder a model, each with its model card and notices."""
