"""Stored audits of data sets."""
