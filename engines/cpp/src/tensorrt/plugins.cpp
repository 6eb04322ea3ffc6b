#include "tensorrt/plugins.h"

#include <dlfcn.h>

#include <filesystem>
#include <vector>

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

PluginLibrary PluginLibrary::find(const EngineFolder& folder, const std::string& given) {
  std::vector<std::string> places{given};
  if (given.empty()) places = {folder.file(text("plugins/", kFile)), (own_folder() / kFile).string()};
  std::string file;
  for (const std::string& place : places) {
    std::error_code ignored;
    if (file.empty() && fs::is_regular_file(place, ignored)) file = fs::absolute(place).string();
  }
  if (file.empty()) {
    throw Error(Code::kMissingBackend, "the attention plugins that the plans need are not there")
        .got(joined(places))
        .hint("build plugins/csrc, and put libpage4d_plugins.so into one of these places, or name it in Options::plugin_library");
  }
  void* handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) throw Error(Code::kMissingBackend, "the attention plugins cannot be opened").got(dlerror());
  const auto kernels = reinterpret_cast<const char* (*)()>(dlsym(handle, "page4d_plugins_kernels"));
  if (kernels == nullptr) throw Error(Code::kMissingBackend, "this is no library of page4d's attention plugins").got(file);
  return {file, kernels()};
}

}  // namespace page4d
