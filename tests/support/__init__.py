"""What tests share: small models, engine folders, checkpoints, builds, references."""
