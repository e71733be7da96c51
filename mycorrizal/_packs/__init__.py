"""Codecs of types that other packages bring, and of classes: what ``mycorrizal.codecs`` registers."""
