#include "launch/driver.h"

#include <dlfcn.h>

#include <utility>

#include "error.h"

namespace page4d::plugin {
namespace {

constexpr char kLibrary[] = "libcuda.so.1";

[[noreturn]] void refuse(const std::string& reason) {
  throw Error("no GPU driver answers").got(reason).hint("the attention kernels run on NVIDIA GPUs");
}

template <class F>
void find(void* library, const char* name, F& function) {
  function = reinterpret_cast<F>(dlsym(library, name));
}

template <class F>
void find_or_refuse(void* library, const char* name, F& function) {
  find(library, name, function);
  if (function == nullptr) refuse(text(kLibrary, " is older than CUDA 12: it has no ", name));
}

}  // namespace

const Driver& Driver::get() {
  static const Driver driver;
  return driver;
}

// Names are those of the entry points themselves: cuda.h maps none of these to another version, which its test asserts.
Driver::Driver() {
  void* library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) refuse(dlerror());
  find_or_refuse(library, "cuInit", calls_.init);
  find_or_refuse(library, "cuGetErrorName", calls_.error_name);
  find_or_refuse(library, "cuCtxGetDevice", calls_.current_device);
  find_or_refuse(library, "cuDeviceGetAttribute", calls_.device_attribute);
  find_or_refuse(library, "cuLibraryLoadData", calls_.load_library);
  find_or_refuse(library, "cuLibraryGetKernel", calls_.library_kernel);
  find_or_refuse(library, "cuKernelSetAttribute", calls_.kernel_attribute);
  find_or_refuse(library, "cuKernelGetFunction", calls_.kernel_function);
  find_or_refuse(library, "cuLaunchKernel", calls_.launch);
  find_or_refuse(library, "cuTensorMapEncodeTiled", calls_.encode);
  find(library, "cuFuncLoad", calls_.function_load);
  if (const cuda::Result result = calls_.init(0); result != cuda::kSuccess) refuse(text("cuInit returned ", result));
}

cuda::Device Driver::current_device() const {
  cuda::Device device = 0;
  check(calls_.current_device(&device), "cuCtxGetDevice");
  return device;
}

int Driver::capability_of(cuda::Device device) const {
  int major = 0, minor = 0;
  check(calls_.device_attribute(&major, cuda::kCapabilityMajor, device), "cuDeviceGetAttribute");
  check(calls_.device_attribute(&minor, cuda::kCapabilityMinor, device), "cuDeviceGetAttribute");
  return 10 * major + minor;
}

cuda::Kernel Driver::load(const Entry& entry) const {
  cuda::Library library = nullptr;
  cuda::Kernel kernel = nullptr;
  check(calls_.load_library(&library, entry.code, nullptr, nullptr, 0, nullptr, nullptr, 0), "cuLibraryLoadData");
  check(calls_.library_kernel(&kernel, library, entry.symbol), "cuLibraryGetKernel");
  return kernel;
}

void Driver::prepare(cuda::Kernel kernel, unsigned shared, cuda::Device device) const {
  check(calls_.kernel_attribute(cuda::kMaxDynamicShared, static_cast<int>(shared), kernel, device),
        "cuKernelSetAttribute");
  cuda::Function function = nullptr;
  check(calls_.kernel_function(&function, kernel), "cuKernelGetFunction");
  if (calls_.function_load != nullptr) check(calls_.function_load(function), "cuFuncLoad");
}

void Driver::launch(cuda::Kernel kernel, const std::array<int64_t, 3>& grid, unsigned threads, unsigned shared,
                    cuda::Stream stream, void** parameters) const {
  const auto side = [&](size_t axis) { return static_cast<unsigned>(grid[axis]); };
  // a kernel of a library is launched in whichever context is current, by its own handle
  const auto function = reinterpret_cast<cuda::Function>(kernel);
  check(calls_.launch(function, side(0), side(1), side(2), threads, 1, 1, shared, stream, parameters, nullptr),
        "cuLaunchKernel");
}

TensorMap Driver::encode(const Descriptor& d, Dtype dtype, uint64_t address) const {
  constexpr uint64_t kBytes = 2;  // of an element
  const auto unsign = [](int64_t size) { return static_cast<uint64_t>(size); };
  const uint64_t sizes[] = {unsign(d.shape[3]), unsign(d.shape[2]), unsign(d.shape[1]), unsign(d.shape[0])};
  const uint64_t strides[] = {kBytes * unsign(d.strides[2]), kBytes * unsign(d.strides[1]),
                              kBytes * unsign(d.strides[0])};
  const uint32_t box[] = {static_cast<uint32_t>(d.shape[3]), static_cast<uint32_t>(d.keys), 1, 1};
  const uint32_t ones[] = {1, 1, 1, 1};
  const int type = dtype == Dtype::kFloat16 ? cuda::kTensorMapFloat16 : cuda::kTensorMapBfloat16;
  TensorMap map;
  check(calls_.encode(&map, type, 4, reinterpret_cast<void*>(address), sizes, strides, box, ones,
                      cuda::kTensorMapInterleaveNone, cuda::kTensorMapSwizzle128, cuda::kTensorMapPromotion128,
                      cuda::kTensorMapFillNone),
        "cuTensorMapEncodeTiled");
  return map;
}

void Driver::check(cuda::Result result, const char* call) const {
  if (result == cuda::kSuccess) return;
  const char* name = nullptr;
  if (calls_.error_name(result, &name) != cuda::kSuccess || name == nullptr) name = "an error without a name";
  throw Error("the CUDA driver refused a call of the attention kernels").got(text(call, ": ", name));
}

}  // namespace page4d::plugin
