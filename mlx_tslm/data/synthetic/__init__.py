"""The synthetic curriculum: recordings that are made, with texts that are true of them."""
