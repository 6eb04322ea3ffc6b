// Regular files inside an engine folder. Mirrors page4d/system/folder_file.py.
#pragma once

#include <string>

namespace page4d {

// The path of a regular file in an engine folder. The folder may be a link, and links inside it may lead to files
// inside it. Throws Error kIncompatible: the file does not exist, is a folder, FIFO, socket or device, or is outside
// the folder.
std::string path_inside(const std::string& folder, const std::string& name);

}  // namespace page4d
