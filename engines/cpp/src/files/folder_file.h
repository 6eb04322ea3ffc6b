// A file of an engine folder, only where it is one and lies inside. Mirrors page4d/folder_file.py.
#pragma once

#include <string>

namespace page4d {

// The path of a regular file in an engine folder. The folder itself may be a link, and links inside it may lead to what
// is inside, too. Throws Error kIncompatible: there is no such file, it is a folder, FIFO, socket or device, or it lies
// outside the folder.
std::string path_inside(const std::string& folder, const std::string& name);

}  // namespace page4d
