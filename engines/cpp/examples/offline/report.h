// report.html: one run on one page. Its pictures are the files beside it; nothing is fetched from a network.
#pragma once

#include <string>

#include "summary.h"

namespace offline {

inline constexpr char kReport[] = "report.html";

// The page, UTF-8.
std::string report(const Summary& summary);

}  // namespace offline
