"""Shots and frames of videos."""
