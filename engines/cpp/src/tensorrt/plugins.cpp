#include "tensorrt/plugins.h"

#include <dlfcn.h>

#include <filesystem>

#include "files/folder_file.h"
#include "page4d/error.h"
#include "text.h"

namespace page4d {
namespace {

namespace fs = std::filesystem;

constexpr char kFile[] = "libpage4d_plugins.so";

// Folder of the library that this code is in.
fs::path own_folder() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<void*>(&own_folder), &info) == 0 || info.dli_fname == nullptr) return {};
  return fs::path(info.dli_fname).parent_path();
}

}  // namespace

PluginLibrary PluginLibrary::find(const EngineFolder& folder, const std::string& requested, bool from_folder) {
  const bool is_listed = folder.manifest.files.count(kPlugins) != 0;
  std::string place = requested.empty() ? (own_folder() / kFile).string() : requested;
  if (requested.empty() && from_folder) {
    if (!is_listed) {
      throw Error(Code::kIncompatible, "the engine folder's plugin library is not listed in its manifest")
          .got(kPlugins)
          .hint("page4d-export --build-only ENGINES --plugin-library libpage4d_plugins.so");
    }
    place = path_inside(folder.path, kPlugins);  // its hash was checked when the folder was opened
  }
  std::error_code ignored;
  if (!fs::is_regular_file(place, ignored)) {
    const char* other = is_listed && requested.empty()
                            ? "; or set Options::load_folder_plugins, which runs code of the engine folder"
                            : "";
    throw Error(Code::kMissingBackend, "the attention plugins that the plans need are not there")
        .got(place)
        .hint(text(
            "build plugins/csrc, and put libpage4d_plugins.so into this place, or name it in Options::plugin_library",
            other));
  }
  const std::string file = fs::absolute(place).string();
  void* handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) throw Error(Code::kMissingBackend, "the attention plugins cannot be opened").got(dlerror());
  const auto kernels = reinterpret_cast<const char* (*)()>(dlsym(handle, "page4d_plugins_kernels"));
  if (kernels == nullptr)
    throw Error(Code::kMissingBackend, "this is no library of page4d's attention plugins").got(file);
  return {file, kernels()};
}

}  // namespace page4d
