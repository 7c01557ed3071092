"""Labelled clips: annotations, directory layouts, sampling, transforms and data sets."""
