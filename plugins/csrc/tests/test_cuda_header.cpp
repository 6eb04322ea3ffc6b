// Compares the types, constants and names of entry points in launch/driver.h with cuda.h.
#include <cuda.h>

#include <string_view>

#include "launch/driver.h"

using namespace page4d::plugin;

static_assert(cuda::kSuccess == CUDA_SUCCESS);
static_assert(cuda::kCapabilityMajor == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
static_assert(cuda::kCapabilityMinor == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
static_assert(cuda::kMaxDynamicShared == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES);
static_assert(cuda::kTensorMapFloat16 == CU_TENSOR_MAP_DATA_TYPE_FLOAT16);
static_assert(cuda::kTensorMapBfloat16 == CU_TENSOR_MAP_DATA_TYPE_BFLOAT16);
static_assert(cuda::kTensorMapInterleaveNone == CU_TENSOR_MAP_INTERLEAVE_NONE);
static_assert(cuda::kTensorMapSwizzle128 == CU_TENSOR_MAP_SWIZZLE_128B);
static_assert(cuda::kTensorMapPromotion128 == CU_TENSOR_MAP_L2_PROMOTION_L2_128B);
static_assert(cuda::kTensorMapFillNone == CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
static_assert(sizeof(TensorMap) == sizeof(CUtensorMap) && alignof(TensorMap) >= alignof(CUtensorMap));
static_assert(sizeof(cuda::Result) == sizeof(CUresult) && sizeof(cuda::Device) == sizeof(CUdevice) &&
              sizeof(cuda::Kernel) == sizeof(CUkernel));

// The entry points are looked up by these names: the header maps none of them to a later version.
#define NAME_(name) #name
#define NAME(name) std::string_view(NAME_(name))
static_assert(NAME(cuInit) == "cuInit" && NAME(cuGetErrorName) == "cuGetErrorName" &&
              NAME(cuCtxGetDevice) == "cuCtxGetDevice");
static_assert(NAME(cuDeviceGetAttribute) == "cuDeviceGetAttribute" && NAME(cuLibraryLoadData) == "cuLibraryLoadData");
static_assert(NAME(cuLibraryGetKernel) == "cuLibraryGetKernel" && NAME(cuKernelSetAttribute) == "cuKernelSetAttribute");
static_assert(NAME(cuKernelGetFunction) == "cuKernelGetFunction" && NAME(cuFuncLoad) == "cuFuncLoad");
static_assert(NAME(cuLaunchKernel) == "cuLaunchKernel" && NAME(cuTensorMapEncodeTiled) == "cuTensorMapEncodeTiled");

int main() {}
