// Whether the stages of a manifest form a chain: each reads tensors that exist by then, in the shapes in which they
// were written. Mirrors page4d/manifest_checks/manifest_chain.py.
#pragma once

#include "manifest/manifest.h"

namespace page4d {

// Throws Error kIncompatible, which names the first part that does not match the others.
void check_chain(const Manifest& manifest);

}  // namespace page4d
