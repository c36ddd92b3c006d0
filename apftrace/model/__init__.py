"""The reasoning: anchors to lives, lives to outcomes and findings. Frames in, frames out; no files, no charts."""
