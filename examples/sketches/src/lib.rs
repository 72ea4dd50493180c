//! What a few lines of HCP do: each example is a program of its own.
