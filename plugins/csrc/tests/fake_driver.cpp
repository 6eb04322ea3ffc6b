#include "fake_driver.h"

#include <cstdint>
#include <cstring>

#define CALL extern "C" __attribute__((visibility("default"))) int

FakeDriver& fake_driver() {
  static FakeDriver driver;
  return driver;
}

CALL cuInit(unsigned) { return fake_driver().init_result; }

CALL cuGetErrorName(int, const char** name) {
  *name = "CUDA_ERROR_FAKE";
  return 0;
}

CALL cuCtxGetDevice(int* device) {
  *device = 3;
  return 0;
}

CALL cuDeviceGetAttribute(int* value, int attribute, int device) {
  if (device != 3) return 1;
  *value = attribute == 75 ? fake_driver().capability / 10 : fake_driver().capability % 10;
  return 0;
}

CALL cuLibraryLoadData(const void** library, const void* code, int*, void**, unsigned, int*, void**, unsigned) {
  const bool is_cubin = std::memcmp(code, "\177ELF", 4) == 0;
  if (is_cubin ? fake_driver().refuses_cubins : fake_driver().refuses_ptx) return 209;
  *library = code;
  ++fake_driver().libraries;
  return 0;
}

CALL cuLibraryGetKernel(const void** kernel, const void* library, const char* symbol) {
  *kernel = library;
  fake_driver().symbols.emplace_back(symbol);
  return 0;
}

CALL cuKernelSetAttribute(int attribute, int value, const void*, int device) {
  if (attribute != 8 || device != 3) return 1;
  fake_driver().shared.push_back(static_cast<unsigned>(value));
  return 0;
}

CALL cuKernelGetFunction(const void** function, const void* kernel) {
  *function = kernel;
  return 0;
}

CALL cuFuncLoad(const void*) {
  ++fake_driver().prepared;
  return 0;
}

CALL cuLaunchKernel(const void* function, unsigned x, unsigned y, unsigned z, unsigned bx, unsigned by, unsigned bz,
                    unsigned shared, void* stream, void** parameters, void** extra) {
  if (extra != nullptr) return 1;
  fake_driver().launches.push_back({function, {x, y, z}, {bx, by, bz}, shared, stream, parameters});
  return fake_driver().launch_result;
}

CALL cuTensorMapEncodeTiled(void* map, int type, uint32_t rank, const void* address, const uint64_t* sizes,
                            const uint64_t* strides, const uint32_t* box, const uint32_t* steps, int interleave,
                            int swizzle, int promotion, int fill) {
  if (rank != 4 || reinterpret_cast<uintptr_t>(map) % 64 != 0 || interleave != 0 || swizzle != 3 || promotion != 2 ||
      fill != 0)
    return 1;
  FakeMap tensor_map{address, type, {}, {}, {}};
  for (size_t i = 0; i < 4; ++i) {
    if (steps[i] != 1) return 1;
    tensor_map.sizes[i] = sizes[i];
    tensor_map.box[i] = box[i];
    if (i < 3) tensor_map.strides[i] = strides[i];
  }
  fake_driver().maps.push_back(tensor_map);
  std::memset(map, 0xd0, 128);
  return 0;
}
