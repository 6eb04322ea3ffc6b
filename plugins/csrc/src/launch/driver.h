// The CUDA driver, opened at its first use: this library also builds engines on machines without a driver.
#pragma once

#include <array>
#include <cstdint>

#include "kernels/modes.h"
#include "launch/parameter_block.h"

namespace page4d::plugin {

// The driver's types, so that no CUDA header is needed; all are as in cuda.h.
namespace cuda {
using Result = int;             // CUresult
using Device = int;             // CUdevice
using Library = struct Lib*;    // CUlibrary
using Kernel = struct Kern*;    // CUkernel
using Function = struct Func*;  // CUfunction
using Stream = struct Strm*;    // CUstream, cudaStream_t

inline constexpr Result kSuccess = 0;               // CUDA_SUCCESS
inline constexpr int kCapabilityMajor = 75;         // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
inline constexpr int kCapabilityMinor = 76;         // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR
inline constexpr int kMaxDynamicShared = 8;         // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
inline constexpr int kTensorMapFloat16 = 6;         // CU_TENSOR_MAP_DATA_TYPE_FLOAT16
inline constexpr int kTensorMapBfloat16 = 9;        // CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
inline constexpr int kTensorMapInterleaveNone = 0;  // CU_TENSOR_MAP_INTERLEAVE_NONE
inline constexpr int kTensorMapSwizzle128 = 3;      // CU_TENSOR_MAP_SWIZZLE_128B
inline constexpr int kTensorMapPromotion128 = 2;    // CU_TENSOR_MAP_L2_PROMOTION_L2_128B
inline constexpr int kTensorMapFillNone = 0;        // CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE
}  // namespace cuda

// Every method throws Error if the driver refuses.
class Driver {
 public:
  // Throws Error if there is no driver or no GPU; a later call tries again.
  static const Driver& get();

  // The GPU whose context is current on this thread.
  cuda::Device current_device() const;
  // Compute capability times ten.
  int capability_of(cuda::Device device) const;

  // Code stays loaded for as long as the process lives.
  cuda::Kernel load(const Entry& entry) const;
  // Allows a kernel its shared memory on a GPU, and loads it there: its first launch may be captured in a CUDA graph,
  // which must not load. A second call changes nothing.
  void prepare(cuda::Kernel kernel, unsigned shared, cuda::Device device) const;

  void launch(cuda::Kernel kernel, const std::array<int64_t, 3>& grid, unsigned threads, unsigned shared,
              cuda::Stream stream, void** parameters) const;

  // A tensor map whose box is a tile of one head, its rows in 128-byte swizzle, zeros beyond the tensor.
  TensorMap encode(const Descriptor& descriptor, Dtype dtype, uint64_t address) const;

 private:
  Driver();
  void check(cuda::Result result, const char* call) const;

  struct Calls {
    cuda::Result (*init)(unsigned);
    cuda::Result (*error_name)(cuda::Result, const char**);
    cuda::Result (*current_device)(cuda::Device*);
    cuda::Result (*device_attribute)(int*, int, cuda::Device);
    cuda::Result (*load_library)(cuda::Library*, const void*, int*, void**, unsigned, int*, void**, unsigned);
    cuda::Result (*library_kernel)(cuda::Kernel*, cuda::Library, const char*);
    cuda::Result (*kernel_attribute)(int, int, cuda::Kernel, cuda::Device);
    cuda::Result (*kernel_function)(cuda::Function*, cuda::Kernel);
    cuda::Result (*function_load)(cuda::Function);  // null before CUDA 12.4
    cuda::Result (*launch)(cuda::Function, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                           cuda::Stream, void**, void**);
    cuda::Result (*encode)(TensorMap*, int, uint32_t, void*, const uint64_t*, const uint64_t*, const uint32_t*,
                           const uint32_t*, int, int, int, int);
  };
  Calls calls_{};
};

}  // namespace page4d::plugin
