// Registers the plugins as soon as it is loaded, for hosts that only open a plugin library, as Triton Inference Server
// does. A library of its own: TensorRT refuses to load a library whose plugins are registered already.
#include <dlfcn.h>

#include <cstdio>
#include <string>

#include "NvInferRuntime.h"

namespace {

constexpr char kPlugins[] = "libpage4d_plugins.so";

void complain(const char* what, const char* got) {
  std::fprintf(stderr, "the page4d plugins are not registered: %s\n  got:     %s\n", what, got);
}

__attribute__((constructor)) void register_plugins() {
  // the TensorRT that the process has loaded, of the headers' version: the registry's methods differ between versions
  void* tensorrt = dlopen(PAGE4D_TENSORRT_LIBRARY, RTLD_NOW | RTLD_NOLOAD);
  if (tensorrt == nullptr)
    return complain("this process has not loaded the TensorRT they are for", PAGE4D_TENSORRT_LIBRARY);
  const auto registry =
      reinterpret_cast<nvinfer1::IPluginRegistry* (*)() noexcept>(dlsym(tensorrt, "getPluginRegistry"));
  Dl_info self{};
  if (registry == nullptr || dladdr(reinterpret_cast<void*>(&register_plugins), &self) == 0)
    return complain("a symbol is missing", dlerror());
  const std::string path = self.dli_fname;
  const std::string beside = path.substr(0, path.rfind('/') + 1) + kPlugins;
  if (registry()->loadLibrary(beside.c_str()) == nullptr) complain("TensorRT refuses the library", beside.c_str());
}

}  // namespace
