"""Reversible weight maps and safetensors files."""
