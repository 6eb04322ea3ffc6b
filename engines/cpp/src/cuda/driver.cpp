#include "cuda/driver.h"

#include <dlfcn.h>

#include <string>

#include "page4d/error.h"
#include "text.h"

namespace page4d::cuda {
namespace {

constexpr char kLibrary[] = "libcuda.so.1";

[[noreturn]] void refuse(const std::string& reason) {
  throw Error(Code::kMissingBackend, "no GPU driver answers").got(reason).allowed("an NVIDIA GPU and its driver");
}

template <class F>
void find(void* library, const char* name, F& function) {
  function = reinterpret_cast<F>(dlsym(library, name));
  if (function == nullptr) refuse(text(kLibrary, " is older than CUDA 12: it has no ", name));
}

}  // namespace

const Driver& Driver::get() {
  static const Driver driver;
  return driver;
}

Driver::Driver() {
  void* library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) refuse(dlerror());
  find(library, "cuInit", init);
  find(library, "cuGetErrorName", error_name);
  find(library, "cuDriverGetVersion", driver_version);
  find(library, "cuDeviceGetCount", device_count);
  find(library, "cuDeviceGet", device_get);
  find(library, "cuDeviceGetName", device_name);
  find(library, "cuDeviceGetAttribute", device_attribute);
  find(library, "cuDevicePrimaryCtxRetain", retain_context);
  find(library, "cuDevicePrimaryCtxRelease_v2", release_context);
  find(library, "cuCtxPushCurrent_v2", push_context);
  find(library, "cuCtxPopCurrent_v2", pop_context);
  find(library, "cuMemGetInfo_v2", memory_info);
  find(library, "cuMemAlloc_v2", allocate);
  find(library, "cuMemFree_v2", free);
  find(library, "cuMemHostAlloc", host_allocate);
  find(library, "cuMemFreeHost", host_free);
  find(library, "cuMemsetD8Async", fill);
  find(library, "cuMemsetD32Async", fill_words);
  find(library, "cuMemcpyHtoDAsync_v2", upload);
  find(library, "cuMemcpyDtoHAsync_v2", download);
  find(library, "cuMemcpy2DAsync_v2", copy_rows);
  find(library, "cuStreamCreate", make_stream);
  find(library, "cuStreamDestroy_v2", destroy_stream);
  find(library, "cuStreamSynchronize", synchronize);
  find(library, "cuEventCreate", make_event);
  find(library, "cuEventDestroy_v2", destroy_event);
  find(library, "cuEventRecordWithFlags", record);
  find(library, "cuEventSynchronize", wait_event);
  find(library, "cuStreamWaitEvent", follow_event);
  find(library, "cuEventElapsedTime", elapsed);
  find(library, "cuLaunchHostFunc", call_host);
  find(library, "cuStreamBeginCapture_v2", begin_capture);
  find(library, "cuStreamEndCapture", end_capture);
  find(library, "cuGraphInstantiateWithFlags", instantiate);
  find(library, "cuGraphDestroy", destroy_graph);
  find(library, "cuGraphExecDestroy", destroy_exec);
  find(library, "cuGraphLaunch", launch);
  if (const Result result = init(0); result != kSuccess) refuse(text("cuInit: ", name_of(result)));
}

const char* Driver::name_of(Result result) const noexcept {
  const char* name = nullptr;
  return error_name(result, &name) == kSuccess && name != nullptr ? name : "an error without a name";
}

void Driver::check(Result result, const char* call) const {
  if (result == kSuccess) return;
  if (result == kOutOfMemory) {
    throw Error(Code::kOutOfMemory, "the GPU has too little memory left")
        .hint("page4d-export with a smaller --T, --V, --height or --width");
  }
  throw Error(Code::kFailure, text("the CUDA driver refused a call: ", name_of(result))).got(call);
}

int Driver::capability_of(DeviceNumber device) const {
  int major = 0, minor = 0;
  check(device_attribute(&major, kCapabilityMajor, device), "cuDeviceGetAttribute");
  check(device_attribute(&minor, kCapabilityMinor, device), "cuDeviceGetAttribute");
  return 10 * major + minor;
}

bool Driver::is_integrated(DeviceNumber device) const {
  int integrated = 0;
  check(device_attribute(&integrated, kIntegrated, device), "cuDeviceGetAttribute");
  return integrated != 0;
}

}  // namespace page4d::cuda
