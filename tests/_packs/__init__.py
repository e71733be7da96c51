"""Codecs of pandas, Arrow, and classes."""
