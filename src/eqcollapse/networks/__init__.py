"""Encoder, explicit head, equilibrium head, classifier."""
