"""The five published data sets: where they are, how their files are read, how they are split."""
