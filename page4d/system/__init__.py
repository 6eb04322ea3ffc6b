"""What the operating system gives: folders, names, signals, memory, text."""
