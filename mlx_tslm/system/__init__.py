"""The machine under the program: its BLAS, its allocator, its memory, the processes that share work."""
