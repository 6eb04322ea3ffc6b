"""How the files of the published models name their tensors."""
