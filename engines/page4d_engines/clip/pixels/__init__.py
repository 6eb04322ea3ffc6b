"""Images as cameras give them, as RGB: YUV, Bayer patterns, and orders of channels. The C++ runtime has the same."""
