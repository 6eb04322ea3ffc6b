"""Photos as Depth Anything 3's public code prepares them."""
