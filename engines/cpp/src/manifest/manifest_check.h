// Whether a manifest goes together in itself, so that no later step has to ask. Mirrors page4d/manifest_check.py.
#pragma once

#include <map>
#include <string>

#include "manifest/manifest.h"
#include "page4d/error.h"

namespace page4d {

// The refusal of a manifest whose parts do not go together.
Error inconsistent(const std::string& what, const std::string& got, const std::string& allowed);

// Throws Error kIncompatible where the sizes are no layout.
Layout layout_of(const std::map<std::string, int64_t>& sizes);

// Throws Error kIncompatible, naming the first part that does not go with the others.
void check_manifest(const Manifest& manifest);

}  // namespace page4d
