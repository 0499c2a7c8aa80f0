"""The synthetic curriculum as it is met outside: few leads, odd lengths, other devices, and what disturbs them.

Each module makes rows with the columns of its clean sibling one folder up, from the same combinations of
parameters (the test split's are held out here too), and its words are true of the signal that was made.
"""

CLEAN_SHARE = 0.25
"""Of a realistic training or validation split, the share of rows that are the clean generator's."""
