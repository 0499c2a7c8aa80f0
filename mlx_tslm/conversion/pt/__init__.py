"""torch's `.pt` files, read and written without torch."""
