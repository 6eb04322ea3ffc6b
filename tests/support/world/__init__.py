"""Windows with known worlds and known errors, and what alignments make of them."""
