// Whether a manifest's stages make a chain: each reads what is there by then, in the shape in which it was made.
// Mirrors page4d/manifest_chain.py.
#pragma once

#include "manifest/manifest.h"

namespace page4d {

// Throws Error kIncompatible, naming the first part that does not go with the others.
void check_chain(const Manifest& manifest);

}  // namespace page4d
